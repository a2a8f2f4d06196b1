//! The lines of an export for the verifier. INVARIANT: a line counts only in the one form that its content has; another space,
//! order, spelling or newline is another line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::tree::Hash;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    format: String,
    tenant: String,
    from: u64,
    peaks: Vec<String>,
    checkpoint: String,
}

pub struct Header {
    pub tenant: String,
    pub from: u64,
    pub peaks: Vec<Hash>,
    pub checkpoint: String,
}

impl Header {
    pub fn parse(line: &str) -> Option<Self> {
        let raw: RawHeader = serde_json::from_str(line).ok()?;
        if canonical(&raw) != line || raw.format != "strongroom log export 1" {
            return None;
        }
        let peaks = raw.peaks.iter().map(|peak| hash(peak)).collect::<Option<_>>()?;
        Some(Self { tenant: raw.tenant, from: raw.from, peaks, checkpoint: raw.checkpoint })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    pub section: u64,
    pub leaves: String,
    pub ours: String,
    pub path: Vec<String>,
    pub signature: String,
}

impl Section {
    pub fn parse(line: &str) -> Option<Self> {
        let head: Self = serde_json::from_str(line).ok()?;
        (canonical(&head) == line).then_some(head)
    }
}

/// The one form of a line. What is written here has nothing that could fail.
pub fn canonical(line: &impl Serialize) -> String {
    serde_json::to_string(line).map(|line| line + "\n").unwrap_or_default()
}

pub fn hash(encoded: &str) -> Option<Hash> {
    STANDARD.decode(encoded).ok()?.try_into().ok()
}

/// Hashes one after the other.
pub fn hashes(encoded: &str) -> Option<Vec<Hash>> {
    let bytes = STANDARD.decode(encoded).ok()?;
    let (hashes, rest) = bytes.as_chunks();
    rest.is_empty().then(|| hashes.to_vec())
}
