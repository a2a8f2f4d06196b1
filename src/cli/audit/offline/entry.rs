//! An entry's canonical bytes and the line that tells of them, for the verifier. INVARIANT: the line is made again from the bytes
//! alone, so whatever was written for people and is not in the bytes shows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::names;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub entry: u64,
    at: String,
    request: String,
    actor: String,
    certificate: Option<String>,
    action: String,
    class: Option<String>,
    purpose: Option<String>,
    verdict: String,
    outcomes: Vec<String>,
    subject: Option<String>,
    whom: Option<String>,
    whom_certificate: Option<String>,
    count: Option<u32>,
    pub bytes: String,
}

impl Line {
    /// The line's number and bytes are what is looked at; `canonical` of what the bytes say must be the line again.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// What is left to read. Integers are big-endian; texts and lists stand behind their length (u32).
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn list(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.list()?).ok()
    }

    /// A code's name; 0 is nothing.
    fn named(&mut self, names: names::Names) -> Option<Option<String>> {
        match self.byte()? {
            0 => Some(None),
            code => names::name(names, code).map(|name| Some(name.to_owned())),
        }
    }
}

/// The line that tells of entry `number` with these bytes, and its tenant. `None`: the bytes are none that this build knows.
pub fn read(number: u64, bytes: &[u8]) -> Option<(Line, String)> {
    let mut rest = Bytes(bytes);
    let format = rest.byte()?;
    // The low half is the format's number; the high half says what stands behind the parts that every entry has.
    let (tells_whom, tells_count) = (format & 0x10 != 0, format & 0x20 != 0);
    if format & !0x30 != 0x01 {
        return None;
    }
    let micros = i64::from_be_bytes(rest.take(8)?.try_into().ok()?);
    let at = jiff::Timestamp::from_microsecond(micros).ok()?.to_string();
    let request = hex::encode(rest.take(16)?);
    let tenant = rest.text()?.to_owned();
    let (actor, certificate) = match rest.named(names::ROLES)? {
        None => ("vault".to_owned(), None),
        Some(role) => (format!("{role}/{}", rest.text()?), Some(hex::encode(rest.take(8)?))),
    };
    let action = rest.named(names::ACTIONS)??;
    let class = rest.named(names::CLASSES)?;
    let purpose = rest.named(names::PURPOSES)?;
    let verdict = rest.named(names::REFUSALS)?.unwrap_or_else(|| "done".to_owned());
    let pairs = rest.list()?;
    let (pairs, []) = pairs.as_chunks::<2>() else { return None };
    let outcome = |[field, outcome]: &[u8; 2]| {
        Some(format!("{} {}", names::name(names::FIELDS, *field)?, names::name(names::OUTCOMES, *outcome)?))
    };
    let outcomes = pairs.iter().map(outcome).collect::<Option<_>>()?;
    let subject = match rest.byte()? {
        0 => None,
        1 => Some(hex::encode(rest.take(16)?)),
        _ => return None,
    };
    let (mut whom, mut whom_certificate) = (None, None);
    if tells_whom {
        match rest.named(names::ROLES)? {
            Some(role) => {
                whom = Some(format!("{role}/{}", rest.text()?));
                whom_certificate = Some(rest.list()?).filter(|hash| !hash.is_empty()).map(hex::encode);
            }
            None => {
                let epoch = u32::from_be_bytes(rest.take(4)?.try_into().ok()?);
                let rows = u64::from_be_bytes(rest.take(8)?.try_into().ok()?);
                whom = Some(format!("epoch {epoch}, {rows} rows"));
            }
        }
    }
    let count = if tells_count { Some(u32::from_be_bytes(rest.take(4)?.try_into().ok()?)) } else { None };
    let line = Line {
        entry: number,
        at,
        request,
        actor,
        certificate,
        action,
        class,
        purpose,
        verdict,
        outcomes,
        subject,
        whom,
        whom_certificate,
        count,
        bytes: STANDARD.encode(bytes),
    };
    rest.0.is_empty().then_some((line, tenant))
}
