//! A record as it lies in the store, and the opening of what it holds.
//!
//! INVARIANT: a field is opened only for a stated `Why`; what was opened for a caller is `Held` and leaves only against the
//! `Receipt` of a durable audit entry.

use zeroize::Zeroizing;

use super::Vault;
use super::error::{Error, unopened};
use crate::audit::entry::SubjectTag;
use crate::crypto::envelope::{Dek, Plaintext, Sealed, WrappedDek, open, unwrap};
use crate::crypto::slot::{DekUse, Part, SealSlot};
use crate::domain::fault::{Fault, planted};
use crate::domain::field::FieldValue;
use crate::domain::id::{DekId, RecordId, SubjectId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::Field;
use crate::policy::facts::Facts;
use crate::policy::leaving::Leaving;
use crate::policy::release::{Access, Permit};
use crate::policy::retention::{Due, Piece};
use crate::store::rows::{GrantRow, RecordRow, SubjectRow, TombstoneRow};
use crate::store::{StoreError, View};

/// What stands behind a token digest.
pub(crate) enum Found {
    Live(Box<Loaded>),
    Erased(TombstoneRow),
    Unknown,
}

/// A record's facts, and when they make it due.
pub(crate) struct Loaded {
    pub(crate) row: RecordRow,
    pub(crate) subject: SubjectRow,
    pub(crate) facts: Facts,
    pub(crate) due: Due,
    /// The pieces that go before the record, each with its own due.
    pub(crate) stages: Vec<(Piece, Due)>,
    pub(crate) tag: SubjectTag,
    /// When it was loaded: what is over by then is not released.
    at: Timestamp,
}

/// Why a field may be opened.
pub(crate) enum Why<'a> {
    /// A caller may see it.
    Release(&'a Permit),
    /// An authority may, of a record that a hold keeps: what else nobody reads any more, too.
    Disclose(&'a Permit),
    /// It is sealed anew at once, in the next revision.
    Reseal,
    /// Its country is counted, as the record goes.
    Count,
    /// Its tag in the index is made anew.
    Reindex,
}

/// The code of a sealed part within its record: a field's own, or one beyond every field's.
pub(crate) fn part_code(part: Part) -> u8 {
    match part {
        Part::Field(field) => field.code(),
        Part::Token | Part::Serial(_) | Part::CustomerReference | Part::Case(_) => TOKEN_PART,
    }
}

const TOKEN_PART: u8 = 200;

impl Vault {
    /// Loads what the digest leads to, its subject's tag of the day included.
    pub(crate) fn find(&self, view: &View<'_>, digest: &TokenDigest, now: Timestamp) -> Result<Found, StoreError> {
        if let Some(row) = view.record_by_digest(digest)? {
            return Ok(Found::Live(Box::new(self.loaded(view, row, now)?)));
        }
        Ok(view.tombstone(digest)?.map_or(Found::Unknown, Found::Erased))
    }

    pub(crate) fn loaded(&self, view: &View<'_>, row: RecordRow, now: Timestamp) -> Result<Loaded, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "record", column };
        let facts = Facts::from_bytes(row.class, row.stored_at, &row.facts).ok_or_else(|| corrupt("facts"))?;
        let subject = view.subject(row.subject)?.ok_or(StoreError::Tampered { table: "subject" })?;
        let due = self.due_of(&row, &subject, &facts)?.ok_or_else(|| corrupt("class"))?;
        let stages = self.policy_of(&row)?.stages(&facts);
        let tag = self.tag_of(view, &subject, now)?;
        Ok(Loaded { row, subject, facts, due, stages, tag, at: now })
    }

    /// When a record with these facts is due: by the policy it was collected under, or because its subject leaves.
    pub(crate) fn due_of(
        &self,
        row: &RecordRow,
        subject: &SubjectRow,
        facts: &Facts,
    ) -> Result<Option<Due>, StoreError> {
        let due = self.policy_of(row)?.due(facts);
        let leaving = subject.leaving.filter(|leaving| leaving.concerns(row.id));
        Ok(due.map(|due| leaving.map_or(due.clone(), |leaving| leaving.due(facts, due))))
    }

    /// The subject's name in today's log: a MAC under the subject's own key, which dies with the subject.
    pub(crate) fn tag_of(
        &self,
        view: &View<'_>,
        subject: &SubjectRow,
        now: Timestamp,
    ) -> Result<SubjectTag, StoreError> {
        Ok(SubjectTag(self.subject_key(view, subject)?.audit_tag(now.utc_day())))
    }

    /// The subject's own key: for its tags in the log, its reference, and the cases of holds on it.
    pub(crate) fn subject_key(&self, view: &View<'_>, subject: &SubjectRow) -> Result<Dek, StoreError> {
        let dek = view.dek(subject.dek)?.filter(|dek| dek.record == RecordId(0));
        let dek = dek.ok_or(StoreError::Tampered { table: "dek" })?;
        let epoch = view.keyring().epoch(dek.epoch).ok_or(StoreError::Tampered { table: "dek" })?;
        let wrapped = WrappedDek::from_bytes(dek.wrapped);
        unwrap(epoch, &subject.wrap_slot(dek.epoch), &wrapped).map_err(unopened("dek"))
    }
}

/// Whether the subject still leaves, or stays, as it did when its record was loaded. Errors: `Raced`, because the record is due
/// otherwise now, and whoever looked through the leaving subject's records may have been here already.
pub(crate) fn as_it_left(view: &View<'_>, subject: SubjectId, leaving: Option<Leaving>) -> Result<(), StoreError> {
    let is_the_same = view.subject(subject)?.is_some_and(|now| now.leaving == leaving);
    if is_the_same { Ok(()) } else { Err(StoreError::Raced) }
}

impl Loaded {
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.due.at <= now
    }

    /// Whether the piece was here, and its own retention is over; the record's may not be.
    pub(crate) fn is_over(&self, piece: Piece) -> bool {
        if planted(Fault::StageReadable) {
            return false;
        }
        self.row.fields.is_over(piece) || self.row.fields.holds_piece(piece) && self.is_stage_due(piece, self.at)
    }

    /// Whether the piece was here, and is destroyed; until it is, a hold keeps it.
    pub(crate) fn is_gone(&self, piece: Piece) -> bool {
        self.row.fields.is_over(piece) && !self.row.fields.holds_piece(piece)
    }

    /// The pieces still held whose own retention is over by `mark`.
    pub(crate) fn ripe(&self, mark: Timestamp) -> Vec<Piece> {
        let fields = self.row.fields;
        let is_ripe =
            |piece: &Piece| fields.holds_piece(*piece) && (fields.is_over(*piece) || self.is_stage_due(*piece, mark));
        Piece::all().filter(is_ripe).collect()
    }

    fn is_stage_due(&self, piece: Piece, at: Timestamp) -> bool {
        self.stages.iter().any(|(stage, due)| *stage == piece && due.at <= at)
    }

    /// The key of the current revision.
    pub(crate) fn key(&self, view: &View<'_>) -> Result<Dek, StoreError> {
        self.unwrap(view, self.row.dek, DekUse::Revision(self.row.revision))
    }

    /// The key of one of the record's grants.
    pub(crate) fn grant_key(&self, view: &View<'_>, grant: &GrantRow) -> Result<Dek, StoreError> {
        self.unwrap(view, grant.dek, DekUse::Grant(grant.id))
    }

    fn unwrap(&self, view: &View<'_>, id: DekId, dek_use: DekUse) -> Result<Dek, StoreError> {
        let missing = StoreError::Tampered { table: "dek" };
        // `record` is what destroying goes by; a key filed under another record would outlive its own.
        let Some(dek) = view.dek(id)?.filter(|dek| dek.record == self.row.id) else { return Err(missing) };
        let Some(epoch) = view.keyring().epoch(dek.epoch) else { return Err(missing) };
        let slot = self.row.wrap_slot(dek.epoch, id, dek_use);
        unwrap(epoch, &slot, &WrappedDek::from_bytes(dek.wrapped)).map_err(unopened("dek"))
    }

    pub(crate) fn slot(&self, part: Part) -> SealSlot<'_> {
        SealSlot { tenant: &self.row.tenant, record: self.row.id, part, revision: self.row.revision, dek: self.row.dek }
    }

    /// Opens one field that the record holds. `Ok(None)`: `why` does not cover it.
    pub(crate) fn open_field(
        &self,
        view: &View<'_>,
        key: &Dek,
        field: Field,
        why: &Why<'_>,
    ) -> Result<Option<FieldValue>, StoreError> {
        match why {
            Why::Release(permit) | Why::Disclose(permit) if permit.access(field) == Access::Deny => return Ok(None),
            Why::Release(_) if self.is_over(Piece::Whole(field)) => return Ok(None),
            Why::Count if field != Field::Address => return Ok(None),
            Why::Reindex if !matches!(field, Field::Email | Field::Phone) => return Ok(None),
            Why::Release(_) | Why::Disclose(_) | Why::Reseal | Why::Count | Why::Reindex => {}
        }
        let plaintext = self.open_part(view, key, Part::Field(field))?;
        let value = FieldValue::from_bytes(field, plaintext.expose());
        let value = value.ok_or(StoreError::Corrupt { table: "sealed", column: "bytes" })?;
        Ok(Some(match (value, why) {
            (FieldValue::Address(address), Why::Release(_)) if self.is_over(Piece::AddressLines) => {
                FieldValue::Address(address.without_lines())
            }
            (value, _) => value,
        }))
    }

    pub(crate) fn open_part(&self, view: &View<'_>, key: &Dek, part: Part) -> Result<Plaintext, StoreError> {
        let bytes = view.sealed(self.row.id, part_code(part))?.ok_or(StoreError::Tampered { table: "sealed" })?;
        open(key, &self.slot(part), &Sealed::from_bytes(bytes)).map_err(unopened("sealed"))
    }
}

/// Proof that an audit entry is on disk; only `Vault::log_read` and its twins make one.
#[must_use]
pub(crate) struct Receipt {
    _logged: (),
}

/// Plaintext that was opened for a caller and not yet logged.
#[must_use]
pub(crate) struct Held<T>(T);

impl<T> Held<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    pub(crate) fn release(self, _logged: &Receipt) -> T {
        self.0
    }
}

impl Vault {
    /// Runs the write that counts and logs a read. `Ok(None)`: what was read has changed since; start over.
    pub(crate) async fn log_read<F>(&self, name: &'static str, write: F) -> Result<Option<Receipt>, Error>
    where
        F: Fn(&mut crate::store::Tx<'_>) -> Result<bool, StoreError> + Send + 'static,
    {
        Ok(self.store().run(name, write).await?.then_some(Receipt { _logged: () }))
    }

    /// `log_read` where other things may keep the read from being logged: `Ok(Err(_))` tells which.
    pub(crate) async fn log_read_unless<T, F>(&self, name: &'static str, write: F) -> Result<Result<Receipt, T>, Error>
    where
        T: Send + 'static,
        F: Fn(&mut crate::store::Tx<'_>) -> Result<Result<(), T>, StoreError> + Send + 'static,
    {
        Ok(self.store().run(name, write).await?.map(|()| Receipt { _logged: () }))
    }

    /// `log_read` for plain threads.
    pub(crate) fn log_read_blocking<F>(&self, name: &'static str, write: F) -> Result<Option<Receipt>, Error>
    where
        F: Fn(&mut crate::store::Tx<'_>) -> Result<bool, StoreError> + Send + 'static,
    {
        Ok(self.store().run_blocking(name, write)?.then_some(Receipt { _logged: () }))
    }
}

/// A masked value, wiped when it goes.
pub(crate) type Masked = Zeroizing<String>;
