//! The rows of facts, in the domain's types. INVARIANT: `canonical` names every column of a row, so the MAC made over it
//! covers them all; a column that is not in there does not exist.

pub(crate) mod callers;
pub mod erasure;
pub(crate) mod retention;
pub mod webhook;

use std::borrow::Cow;

use crate::crypto::mac::IndexTag;
use crate::crypto::slot::{Canonical, DekUse, WrapSlot};
use crate::domain::id::{
    CallerName, DekId, Epoch, ErasureId, GrantId, PolicyVersion, RecordId, Revision, SubjectId, TenantId,
};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{Class, EraseReason, Field};
use crate::policy::leaving::Leaving;
use crate::policy::retention::Piece;
use erasure::Erased;

/// A row whose columns a database administrator may write but not forge.
pub(crate) trait Row {
    const TABLE: &'static str;
    fn canonical(&self) -> Canonical;
}

/// Which fields a record holds, and which pieces of it go before it, as a set. A field that is held is bit `code`; a piece whose own
/// retention is over is bit 16 + `code` from then on, whether it is still held (until the sweeper comes) or not. The lines of an
/// address have no code of their own: bit 31 is their retention's end, bit 30 that they are no longer held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FieldSet(pub u32);

impl FieldSet {
    pub fn with(self, field: Field) -> Self {
        Self(self.0 | 1 << field.code())
    }

    pub fn without(self, field: Field) -> Self {
        Self(self.0 & !(1 << field.code()))
    }

    pub fn holds(self, field: Field) -> bool {
        self.0 & 1 << field.code() != 0
    }

    pub fn holds_piece(self, piece: Piece) -> bool {
        self.holds(piece.field()) && (piece != Piece::AddressLines || self.0 & Self::NO_LINES == 0)
    }

    /// Whether the piece's own retention is over: for good, whatever is heard of the record afterwards.
    pub fn is_over(self, piece: Piece) -> bool {
        self.0 & Self::over_bit(piece) != 0
    }

    pub fn with_over(self, piece: Piece) -> Self {
        Self(self.0 | Self::over_bit(piece))
    }

    /// Without a piece whose own retention is over.
    pub fn without_piece(self, piece: Piece) -> Self {
        match piece {
            Piece::Whole(field) => self.without(field).with_over(piece),
            Piece::AddressLines => Self(self.0 | Self::NO_LINES).with_over(piece),
        }
    }

    const NO_LINES: u32 = 1 << 30;

    fn over_bit(piece: Piece) -> u32 {
        match piece {
            Piece::Whole(field) => 1 << (16 + u32::from(field.code())),
            Piece::AddressLines => 1 << 31,
        }
    }

    /// Holds no field; whatever has gone before.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.iter().copied().filter(move |field| self.holds(*field))
    }
}

/// What one token stands for, without any value.
#[derive(Clone, PartialEq, Debug)]
pub struct RecordRow {
    pub id: RecordId,
    pub tenant: TenantId,
    pub digest: TokenDigest,
    pub subject: SubjectId,
    pub class: Class,
    pub policy_version: PolicyVersion,
    pub stored_at: Timestamp,
    pub revision: Revision,
    pub dek: DekId,
    pub fields: FieldSet,
    /// The canonical bytes of the record's `Facts`.
    pub facts: Vec<u8>,
    /// The sweeper's index; every read computes its own.
    pub due: Timestamp,
    /// Counts the row's changes: optimistic concurrency.
    pub version: u64,
}

impl Row for RecordRow {
    const TABLE: &'static str = "record";
    fn canonical(&self) -> Canonical {
        Canonical::new("strongroom/row/record")
            .i64(self.id.0)
            .bytes(self.tenant.as_str().as_bytes())
            .bytes(&self.digest.0)
            .i64(self.subject.0)
            .u8(self.class.code())
            .bytes(&self.policy_version.0)
            .i64(self.stored_at.0)
            .u64(u64::from(self.revision.0))
            .i64(self.dek.0)
            .u64(u64::from(self.fields.0))
            .bytes(&self.facts)
            .i64(self.due.0)
            .u64(self.version)
    }
}

impl RecordRow {
    /// The place that a key of this record is wrapped for.
    pub fn wrap_slot(&self, epoch: Epoch, dek: DekId, dek_use: DekUse) -> WrapSlot<'_> {
        WrapSlot {
            epoch,
            dek,
            tenant: &self.tenant,
            record: self.id,
            subject: self.subject,
            dek_use,
            class: Some(self.class),
            policy_version: self.policy_version,
            stored_at: self.stored_at,
        }
    }
}

/// A wrapped data encryption key. Its wrap authenticates it; deleting this row is what erases.
#[derive(Clone, PartialEq, Debug)]
pub struct DekRow {
    pub id: DekId,
    /// 0 for a subject's key.
    pub record: RecordId,
    pub epoch: Epoch,
    pub wrapped: Vec<u8>,
}

/// A person some tenant keeps records of.
#[derive(Clone, PartialEq, Debug)]
pub struct SubjectRow {
    pub id: SubjectId,
    pub tenant: TenantId,
    /// Blind index of the shop's reference.
    pub tag: IndexTag,
    pub dek: DekId,
    /// The shop's reference, sealed under the subject's key.
    pub reference: Vec<u8>,
    pub since: Timestamp,
    /// That its erasure was asked for.
    pub leaving: Option<Leaving>,
    /// The record after which nobody has looked yet, of those that the erasure concerns.
    pub unseen: Option<RecordId>,
    /// How many holds are in force on it and its records.
    pub holds: u32,
}

impl Row for SubjectRow {
    const TABLE: &'static str = "subject";
    fn canonical(&self) -> Canonical {
        let row = Canonical::new("strongroom/row/subject")
            .i64(self.id.0)
            .bytes(self.tenant.as_str().as_bytes())
            .bytes(&self.tag.0)
            .i64(self.dek.0)
            .bytes(&self.reference)
            .i64(self.since.0);
        erasure::leaving(row, self)
    }
}

impl SubjectRow {
    /// All but the tag, which is made of the reference under an epoch's key, and made anew with the next.
    pub(crate) fn lasting(&self) -> Canonical {
        Self { tag: IndexTag([0; 16]), ..self.clone() }.canonical()
    }

    pub fn wrap_slot(&self, epoch: Epoch) -> WrapSlot<'_> {
        WrapSlot {
            epoch,
            dek: self.dek,
            tenant: &self.tenant,
            record: RecordId(0),
            subject: self.id,
            dek_use: DekUse::Subject,
            class: None,
            policy_version: PolicyVersion([0; 32]),
            stored_at: self.since,
        }
    }
}

/// Leads from a value of one field to the record that holds it. No MAC: who finds by it opens the field and compares.
#[derive(Clone, PartialEq, Debug)]
pub struct IndexRow {
    /// Grows with time: the order in which a value's records are listed.
    pub id: i64,
    pub record: RecordId,
    pub field: Field,
    pub tag: IndexTag,
    pub epoch: Epoch,
}

/// One parcel that one carrier may deliver.
#[derive(Clone, PartialEq, Debug)]
pub struct GrantRow {
    pub id: GrantId,
    pub tenant: TenantId,
    pub record: RecordId,
    pub parcel: u32,
    pub carrier: CallerName,
    /// Blind index of carrier and serial; gone once the grant has ended.
    pub tag: Option<IndexTag>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub read_limit: u32,
    pub reads: u32,
    pub ended_at: Option<Timestamp>,
    pub dek: DekId,
    /// The serial, sealed under the grant's own key; empty once the grant has ended.
    pub serial: Vec<u8>,
}

impl Row for GrantRow {
    const TABLE: &'static str = "shipment_grant";
    fn canonical(&self) -> Canonical {
        Canonical::new("strongroom/row/shipment_grant")
            .i64(self.id.0)
            .bytes(self.tenant.as_str().as_bytes())
            .i64(self.record.0)
            .u64(u64::from(self.parcel))
            .bytes(self.carrier.as_str().as_bytes())
            .bytes(self.tag.as_ref().map_or(&[], |tag| tag.0.as_slice()))
            .i64(self.not_before.0)
            .i64(self.not_after.0)
            .u64(u64::from(self.read_limit))
            .u64(u64::from(self.reads))
            .u8(u8::from(self.ended_at.is_some()))
            .i64(self.ended_at.map_or(0, |at| at.0))
            .i64(self.dek.0)
            .bytes(&self.serial)
    }
}

impl GrantRow {
    /// All but the tag, which is made of carrier and serial under an epoch's key, and made anew with the next.
    pub(crate) fn lasting(&self) -> Canonical {
        Self { tag: None, ..self.clone() }.canonical()
    }
}

/// That a mutation was done, and what it answered (never a value). Its digests are keyed by the epoch that stamps it, so its
/// stamp never changes: it goes when its window is over.
#[derive(Clone, PartialEq, Debug)]
pub struct IdempotencyRow {
    /// Keyed digest of tenant, caller, verb and key.
    pub digest: [u8; 16],
    /// Keyed digest of the whole request.
    pub request: [u8; 16],
    pub record: RecordId,
    /// The record's token digest: after an erasure it leads to the tombstone.
    pub token: TokenDigest,
    pub result: Vec<u8>,
    pub recorded_at: Timestamp,
}

/// An idempotency row to be inserted, with what its key would be found by under the other living epochs.
#[derive(Clone, PartialEq, Debug)]
pub struct NewIdempotency {
    pub row: IdempotencyRow,
    /// Whose key made the digests.
    pub epoch: Epoch,
    pub elsewhere: Vec<[u8; 16]>,
}

impl Row for IdempotencyRow {
    const TABLE: &'static str = "idempotency";
    fn canonical(&self) -> Canonical {
        Canonical::new("strongroom/row/idempotency")
            .bytes(&self.digest)
            .bytes(&self.request)
            .i64(self.record.0)
            .bytes(&self.token.0)
            .bytes(&self.result)
            .i64(self.recorded_at.0)
    }
}

/// All that remains of an erased record, and that only until `until`.
#[derive(Clone, PartialEq, Debug)]
pub struct TombstoneRow {
    pub digest: TokenDigest,
    pub tenant: TenantId,
    /// Who may be told is who might have read it.
    pub class: Class,
    pub reason: EraseReason,
    pub until: Timestamp,
    /// What its receipt tells.
    pub erased: Option<Erased>,
    /// The erasure of its subject that it was part of.
    pub story: Option<ErasureId>,
}

impl Row for TombstoneRow {
    const TABLE: &'static str = "tombstone";
    fn canonical(&self) -> Canonical {
        let row = Canonical::new("strongroom/row/tombstone")
            .bytes(&self.digest.0)
            .bytes(self.tenant.as_str().as_bytes())
            .u8(self.class.code())
            .u8(self.reason.code())
            .i64(self.until.0);
        erasure::erased(row, self.erased.as_ref(), self.story)
    }
}

/// A number the store remembers about itself (the mark, the keyring's generation, …).
#[derive(Clone)]
pub(crate) struct MetaRow {
    pub key: Cow<'static, str>,
    pub value: Vec<u8>,
}

impl Row for MetaRow {
    const TABLE: &'static str = "meta";
    fn canonical(&self) -> Canonical {
        Canonical::new("strongroom/row/meta").bytes(self.key.as_bytes()).bytes(&self.value)
    }
}

/// How full the store is.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub records: u64,
    pub due: u64,
    /// The earliest `due` among the records that are due.
    pub oldest_due: Option<Timestamp>,
    pub tombstones: u64,
}
