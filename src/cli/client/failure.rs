//! How a command fails: one line and an exit code. INVARIANT: the line says what failed, why, and what to do next; it
//! is made of our own words, the protocol's reasons and field names, paths and operating-system errors, never of a
//! value that was sent.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rpc::client::ConnectError;
use crate::rpc::proto::ErrorReason;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    /// The process's exit code.
    pub code: u8,
}

impl Failure {
    /// The command or its input is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// The vault answered, and said no.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 3 }
    }

    /// No answer, or none now.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 4 }
    }

    /// A local file or stream failed.
    pub fn local(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 5 }
    }

    pub fn io(path: &Path, error: &io::Error) -> Self {
        Self::local(format!("{}: {error}", path.display()))
    }

    /// What the vault said, in full: the reason, the field it speaks of, the way on.
    pub fn of_reason(reason: ErrorReason, field: &str) -> Self {
        let place = if field.is_empty() { String::new() } else { format!(" (field {})", plain_name(field)) };
        let message = format!("refused: {}{place}: {}", reason_name(reason), advice(reason));
        use ErrorReason::{CannotOpen, DiskFull, LockedOut, RateLimited, Sealed, Unavailable};
        let is_only_for_now = matches!(reason, Unavailable | DiskFull | LockedOut | RateLimited | Sealed | CannotOpen);
        if is_only_for_now { Self::unreachable(message) } else { Self::refused(message) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// The reason as errors carry it: `NOT_A_PHONE`.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

const PREFIX: &str = "ERROR_REASON_";

/// A name fit to print: what came from outside could otherwise hide a value or steer a terminal.
pub fn plain_name(raw: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
    let is_plain =
        raw.len() <= 64 && raw.starts_with(|first: char| first.is_ascii_alphabetic()) && raw.bytes().all(plain);
    if is_plain { raw } else { "(not a plain name)" }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if let Some((reason, field)) = verdict(&status) {
            return Self::of_reason(reason, &field);
        }
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded => {
                Self::unreachable(no_connection(&status))
            }
            Code::Unimplemented => Self::refused("refused: this server does not know the call; is it another version?"),
            code => Self::refused(format!("refused: {code:?}, without a reason")),
        }
    }
}

/// Whether a call was refused because its caller makes too many, and nothing else.
pub(super) fn is_too_fast(status: &Status) -> bool {
    verdict(status).is_some_and(|(reason, _)| reason == ErrorReason::RateLimited)
}

/// The reason and the field that an answer of our own carries.
fn verdict(status: &Status) -> Option<(ErrorReason, String)> {
    let details = status.get_error_details();
    let violation = details.bad_request().and_then(|request| request.field_violations.first());
    let info = details.error_info().filter(|info| info.domain == "strongroom").map(|info| info.reason.as_str());
    let named = |name: &str| ErrorReason::from_str_name(&format!("{PREFIX}{name}"));
    // A description is `NOT_A_PHONE: the reason in words`.
    let described = violation.and_then(|violation| violation.description.split(':').next());
    let reason = info.and_then(named).or_else(|| described.and_then(named))?;
    Some((reason, violation.map(|violation| violation.field.clone()).unwrap_or_default()))
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::Endpoint => Self::usage("--server is not https://host:port"),
            ConnectError::Files(trust) => {
                let source = trust.source().map(|source| format!(": {source}")).unwrap_or_default();
                Self::local(format!("{trust}{source}"))
            }
            ConnectError::Transport(_) => Self::unreachable(no_connection(&error)),
        }
    }
}

fn no_connection(error: &(dyn Error + 'static)) -> String {
    let causes = || std::iter::successors(Some(error), |error| (*error).source());
    let io = causes().filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
    // An io::Error hides the error it wraps from `source`.
    let tls = io.and_then(|io| io.get_ref()).and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, io) {
        (Some(rustls::Error::AlertReceived(alert)), _) => {
            format!(
                "the server refuses our certificate or our TLS ({alert:?}); is the certificate expired, revoked, or another CA's?"
            )
        }
        (Some(tls), _) => {
            format!("the server cannot be trusted: {tls}; is --ca the server's CA, and --server its name?")
        }
        (None, Some(io)) => format!("cannot connect: {io}; is the server running at --server?"),
        (None, None) => "the connection was lost; try again".to_owned(),
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::local(format!("standard input or output: {error}"))
    }
}

fn advice(reason: ErrorReason) -> &'static str {
    use ErrorReason as R;
    match reason {
        R::Unspecified => "the server gave no reason; is it another version?",
        R::Missing => "it is required",
        R::NotCollected => "the retention policy does not let this class hold this field; leave it out",
        R::Unknown => "this server does not know the name; is it another version?",
        R::Empty => "it is empty; leave it out or fill it in",
        R::TooShort => "it is too short",
        R::TooLong => "it is too long",
        R::TooMany => "there are too many; send fewer",
        R::ControlCharacter => "it holds a control character; remove it",
        R::CardNumber => "it looks like a payment card number, which is never stored; remove it",
        R::NotAPhone => "write the number internationally: + and the country's code first",
        R::NotAnEmail => "it is no email address",
        R::NotACountry => "write the country as two capital letters (ISO 3166-1)",
        R::NotASerial => "a serial is 4 to 40 characters of A-Z, a-z, 0-9 and '-', of the carrier's pattern",
        R::NotPrintableAscii => "use 1 to 128 printable ASCII characters",
        R::NotAToken => "a token is srt1 and 38 more lower-case characters",
        R::WrongKind => "the value's kind does not fit the field",
        R::Repeated => "it is given twice; a serial: another open grant of the carrier has it",
        R::NotATime => "give a time at most 5 minutes ahead and not more than a year before the record",
        R::NotAWindow => "a grant's window ends after now and within a year; its reads are 1 to 1000",
        R::NotAName => "a name is 1 to 63 characters of a-z, 0-9 and '-', starting with a letter",
        R::NotInTheLog => {
            "the log has no such year, entry or size, or keeps it no more; see `strongroom audit checkpoint`"
        }
        R::Malformed => {
            "the server cannot read the request; is it another version, or the message larger than 256 KiB?"
        }
        R::NotFound => "there is nothing of that kind for this caller",
        R::RoleNotAllowed => "the certificate's role may not call this; use another certificate",
        R::IdentityRefused => {
            "the certificate is expired, revoked or suspended, or its identity is not enrolled: ask a key admin"
        }
        R::RevisionConflict => "the record has changed; describe it, look again, and send its revision",
        R::TooLate => "the record's retention was over before this arrived",
        R::Erased => "the record is destroyed",
        R::Expired => "the record's retention is over",
        R::IdempotencyKeyReused => "the idempotency key belongs to a different request; use a fresh one",
        R::Unavailable => "try again soon, with the same --idempotency-key if you gave one",
        R::Tampered => "stored data failed its authentication; the operator has been told",
        R::NotAHash => "give a SHA-256 hash, or a request's or an approval's number, in hexadecimal digits",
        R::NotAPeriod => "give a time to begin with; the end, if any, comes after it",
        R::AlreadyEnrolled => "the identity is enrolled otherwise or suspended; see `strongroom callers list`",
        R::NotTwoPeople => {
            "it takes a second person: another identity with another key, not enrolled by the first or by the same one"
        }
        R::Held => "a legal hold stands against it; see `strongroom hold list`, and `strongroom hold lift`",
        R::NotErased => "the record is not erased, so there is no receipt",
        R::ClockAstray => {
            "the server's clock and the one you vouch for are more than 5 minutes apart; set the wrong one right first"
        }
        R::ClockBehind => "the server's clock is behind the time that is known to have passed; set it right",
        R::NotACase => "a case is named by 1 to 64 of A-Z, a-z, 0-9, spaces and - . / _ :",
        R::NotAMonth => "give months such as 2026-03, the earlier one first, and 120 at most",
        R::RateLimited => "this caller makes more calls than it may; slow down",
        R::LockedOut => {
            "this certificate was refused too often; try again in a minute, and mend what was refused before: each time lasts longer"
        }
        R::DiskFull => "the vault's disk is full, and its operator is warned; erasing and revoking still work",
        R::NotFindable => "the retention policy does not make this class findable by this; find by something else",
        R::EpochInUse => {
            "only an epoch that was replaced, and under which nothing lies, can go; see `strongroom keys list`"
        }
        R::KeyringNotSaved => {
            "a place of the keyring cannot be written; `strongroom keys list` shows the copies, the server's log says why"
        }
        R::NoBackupFolder => "name a folder as `backups` in [data] of the server's configuration, and restart it",
        R::NoNextRoot => {
            "name a usable [next_root] in the server's configuration and restart it; its log says what is wrong"
        }
        R::NotAPolicy => "`strongroom policy check FILE` names the line and the reason",
        R::RetentionOver => "this field's own retention is over, and it takes no new value; leave it out",
        R::Sealed => "the vault is sealed; its key admins open it with `strongroom unseal`",
        R::NotAShare => "a share is srs1 and 75 more lower-case characters; is it mistyped?",
        R::OtherShares => "the share was made for another keyring, or before the root was replaced",
        R::WrongShare => "the share is none of those that were handed out for this keyring",
        R::CannotOpen => "the server's log tells why; where the root is split, the shares must be given again",
        R::ApprovalOver => "it is decided, carried out, or out of time; ask again for a new approval",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_names_reason_field_and_the_way_on() {
        let mut details = ErrorDetails::with_error_info("NOT_A_PHONE", "strongroom", [(String::new(), String::new())]);
        details.add_bad_request_violation("phone", "NOT_A_PHONE");
        let failure = Failure::from(Status::with_error_details(Code::InvalidArgument, "canary-7f3a", details));
        assert_eq!(failure.code, 3);
        assert_eq!(
            failure.message,
            "refused: NOT_A_PHONE (field phone): write the number internationally: + and the country's code first"
        );
    }

    #[test]
    fn what_a_stranger_answers_is_not_repeated() {
        let mut details = ErrorDetails::with_error_info(
            "canary-7f3a",
            "elsewhere",
            [("canary-7f3a".to_owned(), "canary-7f3a".to_owned())],
        );
        details.add_bad_request_violation("canary 7f3a\u{1b}[2J", "EMPTY: canary-7f3a");
        for code in [Code::InvalidArgument, Code::Unknown, Code::PermissionDenied] {
            let failure = Failure::from(Status::with_error_details(code, "canary-7f3a", details.clone()));
            assert_eq!(
                failure.message,
                "refused: EMPTY (field (not a plain name)): it is empty; leave it out or fill it in"
            );
            let failure = Failure::from(Status::new(code, "canary-7f3a"));
            assert!(!failure.message.contains("7f3a"));
        }
    }

    #[test]
    fn exit_codes_tell_refused_from_unreachable() {
        assert_eq!(Failure::of_reason(ErrorReason::Unavailable, "").code, 4);
        assert_eq!(Failure::of_reason(ErrorReason::LockedOut, "").code, 4);
        assert_eq!(Failure::of_reason(ErrorReason::NotFound, "").code, 3);
        assert_eq!(Failure::from(Status::unavailable("")).code, 4);
        assert_eq!(Failure::from(ConnectError::Endpoint).code, 2);
        assert_eq!(Failure::from(io::Error::other("disk")).code, 5);
    }

    #[test]
    fn a_server_that_refuses_our_certificate_is_named() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        let status = Status::from_error(Box::new(io::Error::other(alert)));
        assert!(Failure::from(status).message.contains("CertificateExpired"));
    }
}
