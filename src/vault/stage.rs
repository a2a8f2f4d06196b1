//! Pieces that go before their record: a phone, the street lines of an address. INVARIANT: from its due on a piece is released to
//! nobody; the sweeper then, unless a hold stands against it, seals what survives as a new revision, and the old revision's key, which opened the piece too, is
//! destroyed in the same commit, with a line in the ledger. A piece that was over is never held again.

use super::call::Draft;
use super::correct::{Next, Prepared, replace};
use super::destroy::clear;
use super::loaded::{Loaded, as_it_left};
use super::pause::save_window;
use super::{Error, Vault};
use crate::audit::entry::{Action, Entry};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{EraseReason, Outcome};
use crate::policy::forecast::Window;
use crate::policy::leaving::Leaving;
use crate::policy::retention::{Due, Piece};
use crate::store::rows::{FieldSet, RecordRow};
use crate::store::{StoreError, Tx, View};

/// Why a piece goes, to those who hold the record back: in the course of things, so that every hold stops it.
pub(crate) const STAGED: EraseReason = EraseReason::Desensitized;

/// A record's next revision, without what is over, and what the log will say.
pub(crate) struct Staged {
    old: RecordRow,
    leaving: Option<Leaving>,
    next: Prepared,
    entry: Entry,
}

/// When the sweeper has something to do with a record next: the index that it looks by.
pub(crate) fn next_due(record: &Due, stages: &[(Piece, Due)], fields: FieldSet) -> Timestamp {
    let held = stages.iter().filter(|(piece, _)| fields.holds_piece(*piece)).map(|(_, due)| due.at);
    held.fold(record.at, Timestamp::min)
}

impl Vault {
    /// What the record goes on with; `None` when nothing of it is over by `mark`.
    pub(crate) fn staged(
        &self,
        view: &View<'_>,
        loaded: &Loaded,
        mark: Timestamp,
    ) -> Result<Option<Staged>, StoreError> {
        let ripe = loaded.ripe(mark);
        if ripe.is_empty() {
            return Ok(None);
        }
        let (revision, fields) = (loaded.row.revision.next(), loaded.row.fields);
        let next = self.next_revision(view, loaded, Next { revision, fields, given: &[], over: ripe.clone() })?;
        let draft = Draft::by_vault(&loaded.row.tenant, self.new_request(), Action::Stage, mark);
        let outcomes = ripe.iter().map(|piece| (piece.field(), Outcome::Expired)).collect();
        let entry = draft.about(loaded.row.class, Some(loaded.tag)).outcomes(outcomes).done();
        Ok(Some(Staged { old: loaded.row.clone(), leaving: loaded.subject.leaving, next, entry }))
    }

    /// Writes the next revisions, and how many more may be; answers how many were. One that changed since it was judged, or is
    /// held by now, is judged again by the next step.
    pub(crate) async fn stage_all(&self, staged: Vec<Staged>, window: Window, mark: Timestamp) -> Result<usize, Error> {
        if staged.is_empty() {
            return Ok(0);
        }
        let write = move |tx: &mut Tx<'_>| {
            let mut written = 0;
            for Staged { old, leaving, next, entry } in &staged {
                let has_changed = tx.record_version(old.id)? != Some(old.version);
                if has_changed || as_it_left(tx, old.subject, *leaving).is_err() || clear(tx, old, STAGED)?.is_err() {
                    continue;
                }
                replace(tx, old, next, mark)?;
                tx.log(entry.clone());
                written += 1;
            }
            save_window(tx, window.after(written as u64))?;
            Ok(written)
        };
        Ok(self.store().run("stage", write).await?)
    }
}
