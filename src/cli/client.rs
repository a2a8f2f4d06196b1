//! What every command of a caller shares: connection options, one way to call, to read times and to print. INVARIANT:
//! personal data and tokens come in by standard input or file and go out by standard output or file; the command line,
//! which every user of the machine can read, carries none, and neither does a failure.

mod failure;
mod input;

use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

pub use self::failure::{Failure, plain_name, reason_name};
pub use self::input::{Named, read, read_text, read_token, read_tokens, token_or_subject};
use crate::crypto::entropy::{self, Entropy};
use crate::domain::time::{Clock as _, SystemClock, Timestamp};
use crate::rpc::client::{self, ClientFiles};

const DEFAULT_SERVER: &str = "https://127.0.0.1:7443";
const CONNECTING: Duration = Duration::from_secs(10);
/// How long any one answer may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a caller that was too fast waits, and how often.
const SLOW: Duration = Duration::from_secs(1);
const SLOWER: usize = 60;

/// Where the vault is and who we are.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The vault, as https://host:port [default: STRONGROOM_SERVER, or https://127.0.0.1:7443]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The CA that vouches for the vault, PEM [default: STRONGROOM_CA]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM: it says who calls [default: STRONGROOM_CERT]
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, PEM [default: STRONGROOM_KEY]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Connects as the options and the environment say.
pub async fn connect(connection: &Connection) -> Result<Channel, Failure> {
    let server = connection.server.clone().or_else(|| std::env::var("STRONGROOM_SERVER").ok());
    let server = server.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
    let files = ClientFiles {
        roots: file(connection.ca.as_deref(), "--ca", "STRONGROOM_CA")?,
        certificate: file(connection.cert.as_deref(), "--cert", "STRONGROOM_CERT")?,
        key: file(connection.key.as_deref(), "--key", "STRONGROOM_KEY")?,
    };
    match timeout(CONNECTING, client::connect(&server, &files)).await {
        Ok(channel) => Ok(channel?),
        Err(_) => Err(Failure::unreachable("cannot connect: no answer within 10 seconds; is --server right?")),
    }
}

fn file(given: Option<&Path>, option: &str, variable: &str) -> Result<PathBuf, Failure> {
    let found = given.map(Path::to_owned).or_else(|| std::env::var_os(variable).map(PathBuf::from));
    found.ok_or_else(|| {
        Failure::usage(format!(
            "nothing says who calls: give {option} FILE or set {variable} (`strongroom dev` prints ready-to-paste commands)"
        ))
    })
}

/// Waits for the answer of one call, for so long.
pub async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Failure::unreachable("no answer within 30 seconds; the call may have been carried out")),
    }
}

/// `answer` for one of many pages, which nobody asks for by hand: told to slow down, it waits and asks again.
pub async fn page<T>(mut call: impl AsyncFnMut() -> Result<Response<T>, Status>) -> Result<T, Failure> {
    for _ in 0..SLOWER {
        match timeout(PATIENCE, call()).await {
            Ok(Err(status)) if failure::is_too_fast(&status) => tokio::time::sleep(SLOW).await,
            Ok(answer) => return Ok(answer?.into_inner()),
            Err(_) => return Err(Failure::unreachable("no answer within 30 seconds; ask again")),
        }
    }
    answer(call()).await
}

/// Waits for the next part of an answer that comes in parts; `then` says how things stand if it does not come.
pub async fn next<T>(parts: &mut tonic::Streaming<T>, then: &str) -> Result<Option<T>, Failure> {
    match timeout(PATIENCE, parts.message()).await {
        Ok(part) => Ok(part?),
        Err(_) => Err(Failure::unreachable(format!("no answer within 30 seconds; {then}"))),
    }
}

/// Makes a change happen once however often it is sent.
#[derive(clap::Args, Clone, Debug)]
pub struct Once {
    /// Send a change again under the key of its first try, and it happens once: 1 to 128 printable ASCII characters, no
    /// personal data. Remembered for 7 days [default: a fresh one]
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

impl Once {
    pub fn key(&self, entropy: &dyn Entropy) -> String {
        self.idempotency_key.clone().unwrap_or_else(|| hex::encode(entropy::array::<16>(entropy)))
    }
}

/// Parses one name of a closed vocabulary; the help lists them all.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(move |item| name(*item)))
        .try_map(move |text| all.iter().copied().find(|item| name(*item) == text).ok_or("not one of the names"))
}

/// Parses an RFC 3339 instant.
pub fn instant(raw: &str) -> Result<Timestamp, &'static str> {
    raw.parse().map(Timestamp::from_jiff).map_err(|_| "not a time such as 2026-03-01T12:00:00Z")
}

/// The instant asked for, or this one.
pub fn or_now(at: Option<Timestamp>) -> Timestamp {
    at.unwrap_or_else(|| SystemClock::new().now())
}

pub fn to_wire(at: Timestamp) -> prost_types::Timestamp {
    let at = at.to_jiff();
    // Before 1970 jiff counts both parts backwards, and protobuf only the seconds.
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
    } else {
        prost_types::Timestamp { seconds, nanos }
    }
}

/// An instant of the server's as RFC 3339, for printing.
pub fn shown(at: Option<prost_types::Timestamp>) -> Option<String> {
    at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok()).map(|at| at.to_string())
}

/// Prints one JSON document, indented for people.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).map_err(io::Error::from)?)
}

/// Prints one JSON document on one line, for the next program.
pub fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string(value).map_err(io::Error::from)?)
}

pub fn print(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::domain::time::SECOND;
    use crate::domain::vocabulary::Purpose;

    #[test]
    fn instants_go_to_the_wire_and_back() {
        for (text, seconds, nanos) in
            [("2026-03-01T12:00:00.25Z", 1_772_366_400, 250_000_000), ("1969-12-31T23:59:59.75Z", -1, 750_000_000)]
        {
            let wire = to_wire(instant(text).unwrap());
            assert_eq!((wire.seconds, wire.nanos), (seconds, nanos));
            assert_eq!(shown(Some(wire)).as_deref(), Some(text));
        }
        assert_eq!(instant("1970-01-01T01:00:01+01:00"), Ok(Timestamp(SECOND)));
        assert!(instant("yesterday").is_err());
        // A leap second has no number of its own: it is the one before, from which a policy's days are as long as ever.
        assert_eq!(instant("2016-12-31T23:59:60Z"), instant("2016-12-31T23:59:59Z"));
    }

    #[test]
    fn a_name_outside_the_vocabulary_is_refused_with_the_names_inside() {
        let command = || {
            clap::Command::new("x")
                .arg(clap::Arg::new("p").long("p").value_parser(one_of(Purpose::ALL, Purpose::as_str)))
        };
        let parsed = command().try_get_matches_from(["x", "--p", "refund"]).unwrap();
        assert_eq!(parsed.get_one::<Purpose>("p"), Some(&Purpose::Refund));
        let error = command().try_get_matches_from(["x", "--p", "curiosity"]).unwrap_err();
        assert!(error.to_string().contains("after_sales"));
    }

    #[test]
    fn a_change_gets_a_fresh_key_unless_it_is_sent_again() {
        let entropy = SeededEntropy::new(1);
        let fresh = Once { idempotency_key: None };
        assert_ne!(fresh.key(&entropy), fresh.key(&entropy));
        assert_eq!(Once { idempotency_key: Some("again".to_owned()) }.key(&entropy), "again");
    }
}
