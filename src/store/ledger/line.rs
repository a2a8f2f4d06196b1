//! The lines of the erasure ledger: how an entry lies in one, and what makes it authentic. INVARIANT: a line has one spelling, the chain
//! binds all of it and every line before, and a MAC under the epoch of its day vouches for that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Learned, LedgerEntry, LedgerEvent};
use crate::crypto::entropy::OsEntropy;
use crate::crypto::keyring::{EpochKeys, Keyring};
use crate::crypto::line::{open_line, seal_line};
use crate::crypto::mac::head_mac;
use crate::crypto::slot::Canonical;
use crate::domain::id::{Epoch, Revision};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{EraseReason, Field};
use crate::policy::retention::Piece;
use crate::store::StoreError;

/// One line of the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) first: u64,
    pub(super) at: i64,
    pub(super) tenant: String,
    pub(super) record: String,
    #[serde(flatten)]
    pub(super) event: Event,
    pub(super) chain: String,
    pub(super) epoch: u32,
    pub(super) mac: String,
}

/// The first line of a ledger whose beginning was cut off. It needs no MAC: what it says is bound by the lines behind it, and a
/// database that would need what was before is refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    pub(super) begins_after: u64,
    pub(super) chain: String,
}

/// What a line tells, as it lies in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    Erased(String),
    Superseded {
        revision: u32,
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        replaced: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        over: Vec<String>,
    },
    EpochEnded(u32),
    Learned(String),
}

/// How far a reading has come.
pub(super) struct Tip {
    pub(super) last: u64,
    pub(super) chain: [u8; 32],
    /// The last line's MAC was checked, and so all before it are bound.
    pub(super) vouched: bool,
}

impl Tip {
    pub(super) const START: Self = Self { last: 0, chain: [0; 32], vouched: true };

    pub(super) fn of(begin: &Begin) -> Option<Self> {
        let mut chain = [0; 32];
        hex::decode_to_slice(&begin.chain, &mut chain).ok()?;
        Some(Self { last: begin.begins_after, chain, vouched: true })
    }

    pub(super) fn vouched_for(self) -> Result<Self, StoreError> {
        let Self { last, vouched, .. } = self;
        let nobody =
            || StoreError::Refused(format!("no living epoch vouches for the erasure ledger's last entry {last}"));
        if vouched { Ok(self) } else { Err(nobody()) }
    }
}

pub(super) fn broken(at: u64) -> StoreError {
    StoreError::Refused(format!("the erasure ledger is broken at its entry {at}"))
}

/// The next line, if it goes on from the tip and is authentic.
pub(super) fn check_line(
    text: &str,
    Tip { last, chain, .. }: &Tip,
    keyring: &Keyring,
) -> Result<(Line, Tip), StoreError> {
    let broken = || broken(last + 1);
    let line: Line = serde_json::from_str(text).map_err(|_| broken())?;
    let next = link(chain, &line);
    // One spelling of a line alone: what is not bound does not exist.
    let is_canonical = serde_json::to_string(&line).is_ok_and(|again| again == text);
    if line.seq != last + 1 || line.first > line.seq || line.chain != hex::encode(next) || !is_canonical {
        return Err(broken());
    }
    let vouched = match keyring.epoch(Epoch(line.epoch)) {
        Some(epoch) if line.mac == hex::encode(head_mac(epoch, &next).as_bytes()) => true,
        // SECURITY: a destroyed epoch's MACs can be checked no more; the chain up to a living epoch's line still binds them.
        None if keyring.has_destroyed(Epoch(line.epoch)) => false,
        Some(_) | None => return Err(broken()),
    };
    let tip = Tip { last: line.seq, chain: next, vouched };
    Ok((line, tip))
}

impl Line {
    /// Without its chain and MAC.
    pub(super) fn of(entry: &LedgerEntry, seq: u64, first: u64, epoch: &EpochKeys) -> Result<Self, StoreError> {
        let (tenant, record) = (entry.tenant.as_str().to_owned(), hex::encode(entry.record.0));
        let event = match &entry.event {
            LedgerEvent::Erased(reason) => Event::Erased(reason.as_str().to_owned()),
            LedgerEvent::Superseded { revision, replaced, over } => Event::Superseded {
                revision: revision.0,
                replaced: replaced.iter().map(|field| field.as_str().to_owned()).collect(),
                over: over.iter().map(|piece| piece.as_str().to_owned()).collect(),
            },
            LedgerEvent::EpochEnded(epoch) => Event::EpochEnded(epoch.0),
            LedgerEvent::Learned(learned) => {
                let context = context(seq, &tenant, &record);
                // A nonce decides nothing that a test would want to repeat.
                let sealed = seal_line(epoch, &context, &learned.to_bytes(), &OsEntropy);
                let failed = |_| StoreError::Refused("a fact is too long for the erasure ledger".to_owned());
                Event::Learned(STANDARD_NO_PAD.encode(sealed.map_err(failed)?))
            }
        };
        let (chain, epoch, mac) = (String::new(), epoch.number().0, String::new());
        Ok(Self { seq, first, at: entry.at.0, tenant, record, event, chain, epoch, mac })
    }

    pub(super) fn entry(&self, keyring: &Keyring) -> Result<LedgerEntry, StoreError> {
        let broken = || broken(self.seq);
        let event = match &self.event {
            Event::Erased(reason) => LedgerEvent::Erased(EraseReason::parse(reason).ok_or_else(broken)?),
            Event::Superseded { revision, replaced, over } => {
                let replaced = replaced.iter().map(|name| Field::parse(name)).collect::<Option<_>>();
                let over = over.iter().map(|name| Piece::parse(name)).collect::<Option<_>>();
                let (Some(replaced), Some(over)) = (replaced, over) else { return Err(broken()) };
                LedgerEvent::Superseded { revision: Revision(*revision), replaced, over }
            }
            Event::EpochEnded(epoch) => LedgerEvent::EpochEnded(Epoch(*epoch)),
            Event::Learned(sealed) => {
                let epoch = keyring.epoch(Epoch(self.epoch)).ok_or_else(|| {
                    StoreError::Refused(format!(
                        "the erasure ledger's entry {} can be read no more: its epoch was destroyed, and with it every \
                         backup that would need it",
                        self.seq
                    ))
                })?;
                let sealed = STANDARD_NO_PAD.decode(sealed).map_err(|_| broken())?;
                let opened = open_line(epoch, &context(self.seq, &self.tenant, &self.record), &sealed);
                let learned = opened.ok().and_then(|bytes| Learned::from_bytes(&bytes)).ok_or_else(broken)?;
                LedgerEvent::Learned(Box::new(learned))
            }
        };
        let mut digest = [0; 16];
        hex::decode_to_slice(&self.record, &mut digest).map_err(|_| broken())?;
        let tenant = self.tenant.parse().map_err(|_| broken())?;
        Ok(LedgerEntry { at: Timestamp(self.at), tenant, record: TokenDigest(digest), event })
    }
}

/// The place of what lies sealed in a line.
pub(super) fn context(seq: u64, tenant: &str, record: &str) -> Canonical {
    Canonical::new("strongroom/ledger/learned").u64(seq).bytes(tenant.as_bytes()).bytes(record.as_bytes())
}

pub(super) fn link(chain: &[u8; 32], line: &Line) -> [u8; 32] {
    let bytes = Canonical::new("strongroom/ledger")
        .bytes(chain)
        .u64(line.seq)
        .u64(line.first)
        .i64(line.at)
        .bytes(line.tenant.as_bytes())
        .bytes(line.record.as_bytes());
    let list = |bytes: Canonical, names: &[String]| {
        names.iter().fold(bytes.u64(names.len() as u64), |bytes, name| bytes.bytes(name.as_bytes()))
    };
    let bytes = match &line.event {
        Event::Erased(reason) => bytes.u8(1).bytes(reason.as_bytes()),
        Event::Superseded { revision, replaced, over } => {
            list(list(bytes.u8(2).u64(u64::from(*revision)), replaced), over)
        }
        Event::EpochEnded(epoch) => bytes.u8(3).u64(u64::from(*epoch)),
        Event::Learned(sealed) => bytes.u8(4).bytes(sealed.as_bytes()),
    };
    Sha256::digest(bytes.as_bytes()).into()
}
