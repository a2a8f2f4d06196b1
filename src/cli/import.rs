//! `strongroom import`: a file of customers in, a file of tokens out. INVARIANT: killed at any instant and run again,
//! every line ends with exactly one token or one reject, in the file's order; memory stays flat however long the file
//! is.

mod journal;
mod rows;

use std::collections::VecDeque;
use std::path::PathBuf;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use self::journal::{Counts, Heading, Journal};
use self::rows::{Row, Rows};
use super::Failure;
use super::client::{self, Connection};
use super::customer::{Customer, Flaw};
use crate::crypto::entropy::OsEntropy;
use crate::domain::vocabulary::{Class, Field};
use crate::rpc::proto::token_service_client::TokenServiceClient;
use crate::rpc::proto::{
    ErrorReason, TokenizeRequest, TokenizeStreamRequest, TokenizeStreamResponse, tokenize_stream_response,
};

/// How many lines may wait for their answers.
const WINDOW: usize = 512;

const BAR: &str = "{bar:40} {percent:>3}%  {msg}  {elapsed_precise} (another {eta})";

const EXAMPLES: &str = "\
FILE holds one customer a line, as `strongroom tokenize --help` shows them. The tokens file gets one line that names the \
import, and for each customer:
  {\"line\":1,\"order\":\"…\",\"token\":\"srt1…\"}
The rejects file gets, never the row itself:
  {\"line\":2,\"field\":\"phone\",\"reason\":\"NOT_A_PHONE\"}
Correct rejected rows in a file of their own and import that.

Killed or cut off? Run the same command again within 7 days: it goes on where it stopped, and a line whose token was not \
written yet gets the token it already has. Run again when complete, it changes nothing.

Examples:
  strongroom import orders.jsonl --tokens tokens.jsonl --skip-field emergency_contact
  strongroom import accounts.jsonl --tokens tokens.jsonl --rejects rejects.jsonl --class account --strict";

/// Stores a file of customers, one JSON object a line; resumable
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The customers; the file must not change until the import is complete
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the tokens go; nobody else may read it
    #[arg(long, value_name = "OUT")]
    tokens: PathBuf,
    /// Where the rejects go [default: the tokens file's name with .rejects]
    #[arg(long, value_name = "OUT")]
    rejects: Option<PathBuf>,
    /// A field not to send; may be given several times
    #[arg(long = "skip-field", value_name = "FIELD", value_parser = client::one_of(Field::ALL, Field::as_str))]
    skip: Vec<Field>,
    /// Which retention rules the records live by
    #[arg(long, default_value = "order", value_parser = client::one_of(Class::ALL, Class::as_str))]
    class: Class,
    /// Fail (exit code 3) when lines were rejected
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let rejects = args.rejects.clone().unwrap_or_else(|| {
        let mut name = args.tokens.clone().into_os_string();
        name.push(".rejects");
        name.into()
    });
    let mut rows = Rows::open(&args.file)?;
    let heading = Heading::new(&OsEntropy, args.class, &args.skip);
    let (journal, resumed) = Journal::open(&args.tokens, &rejects, heading)?;
    rows.skip_to(&resumed)?;
    let bar = progress(rows.length());
    let mut import = Import { args: &args, import: resumed.import, rows, journal, window: VecDeque::new(), bar };
    let outcome = import.carry_out().await;
    let synced = import.journal.sync();
    import.bar.finish_and_clear();
    outcome.and(synced).map_err(|failure| Failure {
        message: format!("{}\nNothing is lost: run the same command again and it goes on from here.", failure.message),
        ..failure
    })?;

    let Counts { tokenized, rejected } = import.journal.counts();
    let (lines, done, bad) = (HumanCount(tokenized + rejected), HumanCount(tokenized), HumanCount(rejected));
    let hint = if rejected == 0 { String::new() } else { format!(" (see {})", rejects.display()) };
    let summary = format!("{lines} lines: {done} tokenized, {bad} rejected{hint}");
    if args.strict && rejected > 0 { Err(Failure::refused(summary)) } else { client::print(&summary) }
}

fn progress(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR);
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

struct Import<'a> {
    args: &'a Args,
    import: String,
    rows: Rows,
    journal: Journal,
    /// Lines read and not yet filed, in order.
    window: VecDeque<Pending>,
    bar: ProgressBar,
}

struct Pending {
    line: u64,
    order: Option<String>,
    /// What is wrong with a line that was not sent.
    flaw: Option<Flaw>,
}

impl Import<'_> {
    async fn carry_out(&mut self) -> Result<(), Failure> {
        // As wide as the window, so that sending never waits.
        let (sender, requests) = mpsc::channel(WINDOW);
        self.fill(&sender).await?;
        if self.window.is_empty() {
            return Ok(());
        }
        let mut vault = TokenServiceClient::new(client::connect(&self.args.connection).await?);
        let mut answers = client::answer(vault.tokenize_stream(ReceiverStream::new(requests))).await?;
        let mut answered = 0;
        while let Some(Pending { line, order, flaw }) = self.window.pop_front() {
            let result = match flaw {
                Some(flaw) => Err(flaw),
                None => judge(next(&mut answers).await?, &mut answered)?,
            };
            match result {
                Ok(token) => self.journal.token(line, order.as_deref(), &token)?,
                Err(flaw) => self.journal.reject(line, &flaw)?,
            }
            self.show();
            self.fill(&sender).await?;
        }
        Ok(())
    }

    /// Reads and sends until as many lines wait as may.
    async fn fill(&mut self, sender: &mpsc::Sender<TokenizeStreamRequest>) -> Result<(), Failure> {
        while self.window.len() < WINDOW
            && let Some(row) = self.rows.next()?
        {
            let (order, flaw) = match self.request(&row) {
                Ok((order, request)) => {
                    // A closed stream tells its reason where the answers are read.
                    let _ = sender.send(TokenizeStreamRequest { item: Some(request) }).await;
                    (order, None)
                }
                Err(flaw) => (None, Some(flaw)),
            };
            self.window.push_back(Pending { line: row.line, order, flaw });
        }
        Ok(())
    }

    fn request(&self, row: &Row) -> Result<(Option<String>, TokenizeRequest), Flaw> {
        if row.is_cut {
            return Err(Flaw::new("", ErrorReason::TooLong));
        }
        let customer = Customer::parse(&row.text, self.args.class)?.without(&self.args.skip);
        let order = customer.order.clone();
        Ok((order, customer.into_tokenize(self.args.class, idempotency_key(&self.import, row))?))
    }

    fn show(&self) {
        let Counts { tokenized, rejected } = self.journal.counts();
        self.bar.set_position(self.rows.read());
        self.bar.set_message(format!("{} tokenized, {} rejected", HumanCount(tokenized), HumanCount(rejected)));
    }
}

async fn next(answers: &mut Streaming<TokenizeStreamResponse>) -> Result<TokenizeStreamResponse, Failure> {
    let answer = client::next(answers, "give the same command again to go on").await?;
    answer.ok_or_else(|| Failure::unreachable("the server ended the stream early"))
}

/// The token, or the flaw of this one line; a failure when the fault is not the line's.
fn judge(answer: TokenizeStreamResponse, answered: &mut u64) -> Result<Result<String, Flaw>, Failure> {
    if answer.index != *answered {
        return Err(Failure::refused("the server answered out of order"));
    }
    *answered += 1;
    match answer.result {
        Some(tokenize_stream_response::Result::Done(done)) => Ok(Ok(done.token)),
        Some(tokenize_stream_response::Result::Error(error)) if is_the_lines_own(error.reason()) => {
            Ok(Err(Flaw::new(&error.field, error.reason())))
        }
        Some(tokenize_stream_response::Result::Error(error)) => Err(Failure::of_reason(error.reason(), &error.field)),
        None => Err(Failure::refused("the server answered without a result")),
    }
}

/// Whether another try of the same line would end the same, whoever tries and whenever.
fn is_the_lines_own(reason: ErrorReason) -> bool {
    use ErrorReason as R;
    match reason {
        R::Missing
        | R::NotCollected
        | R::Unknown
        | R::Empty
        | R::TooShort
        | R::TooLong
        | R::TooMany
        | R::ControlCharacter
        | R::CardNumber
        | R::NotAPhone
        | R::NotAnEmail
        | R::NotACountry
        | R::NotASerial
        | R::NotPrintableAscii
        | R::NotAToken
        | R::WrongKind
        | R::Repeated
        | R::NotATime
        | R::NotAWindow
        | R::NotAName
        | R::Erased
        | R::Expired
        | R::TooLate => true,
        R::Unspecified
        | R::Malformed
        | R::NotFound
        | R::RoleNotAllowed
        | R::IdentityRefused
        | R::RevisionConflict
        | R::IdempotencyKeyReused
        | R::Unavailable
        | R::RateLimited
        | R::LockedOut
        | R::DiskFull
        | R::Tampered
        | R::NotAHash
        | R::NotAMonth
        | R::NotErased
        | R::ClockAstray
        | R::ClockBehind
        | R::Held
        | R::NotAPeriod
        | R::NotInTheLog
        | R::AlreadyEnrolled
        | R::NotTwoPeople
        | R::ApprovalOver
        | R::NotFindable
        | R::EpochInUse
        | R::KeyringNotSaved
        | R::NoNextRoot
        | R::NoBackupFolder
        | R::RetentionOver
        | R::NotAPolicy
        | R::NotACase
        | R::Sealed
        | R::NotAShare
        | R::OtherShares
        | R::WrongShare
        | R::CannotOpen => false,
    }
}

/// The same line of the same import has the same key, whenever it is sent; another line or text has another.
fn idempotency_key(import: &str, row: &Row) -> String {
    let mut hash = Sha256::new();
    for part in [b"strongroom/import".as_slice(), import.as_bytes(), &row.line.to_be_bytes(), &row.text] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::{ItemError, TokenizeResponse};
    use zeroize::Zeroizing;

    fn row(line: u64, text: &str) -> Row {
        Row { line, text: Zeroizing::new(text.as_bytes().to_vec()), is_cut: false }
    }

    fn refused(reason: ErrorReason) -> TokenizeStreamResponse {
        let error = ItemError { reason: reason.into(), field: "phone".to_owned() };
        TokenizeStreamResponse { index: 0, result: Some(tokenize_stream_response::Result::Error(error)) }
    }

    #[test]
    fn a_key_belongs_to_one_line_of_one_import() {
        let key = idempotency_key("i", &row(1, "{}"));
        assert_eq!(key, idempotency_key("i", &row(1, "{}")));
        assert_eq!(key.len(), 64);
        for other in [
            idempotency_key("j", &row(1, "{}")),
            idempotency_key("i", &row(2, "{}")),
            idempotency_key("i", &row(1, "{ }")),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn a_bad_line_is_rejected_and_a_bad_server_stops_the_import() {
        let flaw = judge(refused(ErrorReason::NotAPhone), &mut 0).unwrap().unwrap_err();
        assert_eq!((flaw.field.as_str(), flaw.reason), ("phone", "NOT_A_PHONE"));
        assert_eq!(judge(refused(ErrorReason::Unavailable), &mut 0).unwrap_err().code, 4);
        assert_eq!(judge(refused(ErrorReason::Unspecified), &mut 0).unwrap_err().code, 3);
    }

    #[test]
    fn the_progress_bar_is_the_one_designed() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn an_answer_out_of_order_stops_the_import() {
        let done = |index| TokenizeStreamResponse {
            index,
            result: Some(tokenize_stream_response::Result::Done(TokenizeResponse { token: "srt1".to_owned() })),
        };
        let mut answered = 0;
        assert!(judge(done(0), &mut answered).is_ok());
        assert!(judge(done(0), &mut answered).is_err());
        assert!(judge(done(2), &mut answered).is_err());
        assert!(judge(done(1), &mut answered).is_ok());
    }
}
