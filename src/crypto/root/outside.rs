//! What the sources outside this process share: an address fit to send a root key to, a thread to wait on, and words for what
//! went wrong there. INVARIANT: nobody waits longer than `PATIENCE`, and nothing that an outside service said is repeated.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use reqwest::Url;

use super::RootError;

/// How long an outside service may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What is wrong with an outside service's help, in words that follow its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    #[error("cannot be reached")]
    Unreachable,
    #[error("did not answer within 10 seconds")]
    TimedOut,
    #[error("cannot be trusted: its certificate is not of the CA we were given, or not for this name")]
    Untrusted,
    #[error("refuses us: our token, PIN or credentials are wrong, expired, or not allowed to use the key")]
    Denied,
    #[error("is sealed itself")]
    Sealed,
    #[error("knows no such key, or no such mount")]
    NoSuchKey,
    #[error("has several keys of that name")]
    SeveralKeys,
    #[error("does not let the version of its key be used any more that wrapped our root key")]
    KeyVersion,
    #[error("cannot unwrap our root key with this key: it was wrapped by another, or altered")]
    WrongKey,
    #[error("is to use another key than the one that wrapped our root key")]
    OtherKey,
    #[error("has the key disabled, or about to be deleted")]
    KeyDisabled,
    #[error("cannot wrap with a key of this kind")]
    Unfit,
    #[error("has no token of that label")]
    NoToken,
    #[error("has several tokens of that label")]
    SeveralTokens,
    #[error("refuses the PIN: it is wrong; a few more and the token locks itself")]
    WrongPin,
    #[error("has locked the token after too many wrong PINs: its security officer can reset it")]
    PinLocked,
    #[error("cannot be loaded: is the module's path right?")]
    NoModule,
    #[error("gave us no credentials: the environment, profile or instance has none")]
    NoCredentials,
    #[error("answered what makes no sense here")]
    Nonsense,
    #[error("failed")]
    Failed,
}

pub(super) fn trouble(role: &'static str, trouble: Trouble) -> RootError {
    RootError::Outside { role, trouble }
}

/// Runs `work` on a thread of its own, since we may be called from within a runtime, and waits for it.
pub(super) fn within<T: Send + 'static>(
    role: &'static str,
    patience: Duration,
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, RootError> {
    let (done, answer) = sync_channel(1);
    let working = move || {
        // Nobody listens any more if it took too long.
        let _ = done.send(work());
    };
    let started = std::thread::Builder::new().name("root-source".to_owned()).spawn(working);
    let answered = match (started, answer.recv_timeout(patience)) {
        (Err(_), _) => Err(Trouble::Failed),
        (Ok(_), Err(RecvTimeoutError::Timeout)) => Err(Trouble::TimedOut),
        // A library of its panicked.
        (Ok(_), Err(RecvTimeoutError::Disconnected)) => Err(Trouble::Failed),
        (Ok(_), Ok(answer)) => answer,
    };
    answered.map_err(|what| trouble(role, what))
}

/// Runs a future to its end on the current thread, which must not be a runtime's.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|_| Trouble::Failed)?.block_on(work)
}

/// One of an error's causes, by its kind. An `io::Error` hides what it wraps from `source`, so those are looked into.
pub(super) fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), |error| below(*error)).find_map(|cause| cause.downcast_ref())
}

/// Where a service listens: over TLS, or on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address(Url);

impl Address {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The TCP port that it is reached on.
    pub fn port(&self) -> Option<u16> {
        self.0.port_or_known_default()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is no address like https://bao.example:8200; plain http goes to 127.0.0.1, [::1] or localhost alone")]
pub struct BadAddress;

impl FromStr for Address {
    type Err = BadAddress;

    /// SECURITY: a root key passes here, so plain http leaves this machine never. A name or password inside the address would
    /// be a secret in a configuration file.
    fn from_str(raw: &str) -> Result<Self, BadAddress> {
        let url = Url::parse(raw).map_err(|_| BadAddress)?;
        let host = url.host_str().ok_or(BadAddress)?;
        let numeric = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let here = host == "localhost" || numeric.is_ok_and(|address| address.is_loopback());
        let carried = url.scheme() == "https" || (url.scheme() == "http" && here);
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        if carried && bare { Ok(Self(url)) } else { Err(BadAddress) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine_and_an_address_carries_nothing_else() {
        for good in [
            "https://bao.example:8200",
            "https://10.0.0.7",
            "http://127.0.0.1:8200",
            "http://[::1]:1",
            "http://localhost",
        ] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        for bad in [
            "http://bao.example:8200",
            "http://10.0.0.7",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "https://me@bao.example",
            "https://me:pw@bao.example",
            "https://bao.example/v1",
            "https://bao.example?token=x",
            "https://bao.example#x",
            "ftp://127.0.0.1",
            "bao.example",
            "",
        ] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad}");
        }
    }

    #[test]
    fn who_does_not_answer_in_time_and_who_panics_are_told_apart() {
        let late = within("x", Duration::from_millis(20), || {
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        });
        assert_eq!(late.unwrap_err().to_string(), "the x did not answer within 10 seconds");
        let broken = within::<()>("x", PATIENCE, || panic!("a library's defect"));
        assert_eq!(broken.unwrap_err().to_string(), "the x failed");
        assert_eq!(within("x", PATIENCE, || Ok(7)).unwrap(), 7);
    }

    #[test]
    fn a_runtimes_thread_may_ask_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async { within("x", PATIENCE, || block_on(async { Ok(7) })) });
        assert_eq!(answer.unwrap(), 7);
    }
}
