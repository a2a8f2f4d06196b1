//! The rows about erasing: what is told of a record that went, legal holds, months of statistics. INVARIANT: as for every row,
//! `canonical` names every column.

use super::{Row, SubjectRow};
use crate::crypto::slot::{Canonical, DekUse, WrapSlot};
use crate::domain::caller::CallerId;
use crate::domain::id::{DekId, Epoch, ErasureId, HoldId, PolicyVersion, RecordId, SubjectId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::HoldKind;
use crate::policy::cube::{Cell, Who};

/// What a receipt tells of an erased record, beside its tombstone's own columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Erased {
    pub at: Timestamp,
    /// When no backup can open it any more.
    pub in_backups_by: Timestamp,
    /// The audit entry that tells of it, from 0.
    pub entry: u64,
    /// The erasure ledger's line, from 1.
    pub line: u64,
    /// The keys that were destroyed, each with the epoch it was wrapped under.
    pub keys: Vec<(DekId, Epoch)>,
}

/// at i64 ‖ in_backups_by i64 ‖ entry u64 ‖ line u64, then (key i64 ‖ epoch u32) for each, big-endian.
const KEY: usize = 12;

impl Erased {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.keys.len() * KEY);
        for number in [self.at.0, self.in_backups_by.0] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for number in [self.entry, self.line] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for (key, epoch) in &self.keys {
            out.extend_from_slice(&key.0.to_be_bytes());
            out.extend_from_slice(&epoch.0.to_be_bytes());
        }
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk()?;
        let (in_backups_by, rest) = rest.split_first_chunk()?;
        let (entry, rest) = rest.split_first_chunk()?;
        let (line, rest) = rest.split_first_chunk()?;
        let (keys, []) = rest.as_chunks::<KEY>() else { return None };
        let key = |bytes: &[u8; KEY]| {
            let (key, epoch) = bytes.split_first_chunk()?;
            Some((DekId(i64::from_be_bytes(*key)), Epoch(u32::from_be_bytes(epoch.try_into().ok()?))))
        };
        Some(Self {
            at: Timestamp(i64::from_be_bytes(*at)),
            in_backups_by: Timestamp(i64::from_be_bytes(*in_backups_by)),
            entry: u64::from_be_bytes(*entry),
            line: u64::from_be_bytes(*line),
            keys: keys.iter().map(key).collect::<Option<_>>()?,
        })
    }
}

/// Somebody's word that a record, or all of a subject's, must not be destroyed.
#[derive(Clone, PartialEq, Debug)]
pub struct HoldRow {
    pub id: HoldId,
    pub tenant: TenantId,
    pub subject: SubjectId,
    /// `None`: every record of the subject, later ones included.
    pub record: Option<RecordId>,
    pub kind: HoldKind,
    /// The case's name, sealed under the subject's key; empty once the hold is lifted.
    pub reference: Vec<u8>,
    pub placed_by: CallerId,
    pub placed_at: Timestamp,
    pub lifted_at: Option<Timestamp>,
}

impl HoldRow {
    /// Whether it holds back this record of its subject.
    pub fn is_on(&self, record: RecordId) -> bool {
        self.lifted_at.is_none() && self.record.is_none_or(|held| held == record)
    }
}

impl Row for HoldRow {
    const TABLE: &'static str = "hold";
    fn canonical(&self) -> Canonical {
        Canonical::new("strongroom/row/hold")
            .i64(self.id.0)
            .bytes(self.tenant.as_str().as_bytes())
            .i64(self.subject.0)
            .i64(self.record.map_or(0, |record| record.0))
            .u8(self.kind.code())
            .bytes(&self.reference)
            .bytes(self.placed_by.to_string().as_bytes())
            .i64(self.placed_at.0)
            .u8(u8::from(self.lifted_at.is_some()))
            .i64(self.lifted_at.map_or(0, |at| at.0))
    }
}

/// One month of a tenant's statistics; `month` is year × 12 + month − 1, UTC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonthRow {
    pub tenant: TenantId,
    pub month: i64,
    pub state: MonthState,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MonthState {
    /// Counting; the key that tells its subjects apart, wrapped under an epoch.
    Open { epoch: Epoch, key: Vec<u8> },
    /// Published, for good.
    Closed { at: Timestamp, cube: Vec<u8> },
}

impl MonthRow {
    /// The place that the month's key is wrapped for.
    pub fn wrap_slot(&self, epoch: Epoch) -> WrapSlot<'_> {
        WrapSlot {
            epoch,
            dek: DekId(0),
            tenant: &self.tenant,
            record: RecordId(0),
            subject: SubjectId(0),
            dek_use: DekUse::Month(self.month),
            class: None,
            policy_version: PolicyVersion([0; 32]),
            stored_at: Timestamp(0),
        }
    }
}

impl Row for MonthRow {
    const TABLE: &'static str = "month";
    fn canonical(&self) -> Canonical {
        let row = Canonical::new("strongroom/row/month").bytes(self.tenant.as_str().as_bytes()).i64(self.month);
        match &self.state {
            MonthState::Open { epoch, key } => row.u8(1).u64(u64::from(epoch.0)).bytes(key),
            MonthState::Closed { at, cube } => row.u8(2).i64(at.0).bytes(cube),
        }
    }
}

/// How many records of one person were desensitized, in one cell of an open month.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TallyRow {
    pub tenant: TenantId,
    pub month: i64,
    pub cell: Cell,
    pub who: Who,
    pub count: u64,
}

impl Row for TallyRow {
    const TABLE: &'static str = "tally";
    fn canonical(&self) -> Canonical {
        Canonical::new("strongroom/row/tally")
            .bytes(self.tenant.as_str().as_bytes())
            .i64(self.month)
            .u8(self.cell.class.code())
            .bytes(self.cell.country.as_bytes())
            .bytes(&self.who.0)
            .u64(self.count)
    }
}

/// A subject's leaving and its holds, within its row's canonical bytes.
pub(super) fn leaving(row: Canonical, subject: &SubjectRow) -> Canonical {
    let SubjectRow { leaving, unseen, holds, .. } = subject;
    if leaving.is_none() && *holds == 0 {
        return row;
    }
    let row = row.u64(u64::from(*holds));
    let Some(leaving) = leaving else { return row };
    row.i64(leaving.at.0)
        .u8(leaving.reason.code())
        .bytes(&leaving.story.0)
        .i64(leaving.last.0)
        .u8(u8::from(unseen.is_some()))
        .i64(unseen.map_or(0, |record| record.0))
}

/// What is known of an erasure, within its tombstone's canonical bytes.
pub(super) fn erased(row: Canonical, erased: Option<&Erased>, story: Option<ErasureId>) -> Canonical {
    let Some(erased) = erased else { return row };
    row.bytes(&erased.to_bytes()).bytes(story.as_ref().map_or(&[], |story| story.0.as_slice()))
}
