//! What a token stands for, without any value. INVARIANT: nothing is opened.

use super::call::{Call, Draft};
use super::destroy::in_force;
use super::loaded::{Found, Loaded};
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::id::{PolicyVersion, Revision};
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::{Class, EraseReason, Field, HoldKind};
use crate::policy::retention::{Due, DueReason, Piece};
use crate::store::StoreError;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordState {
    Live,
    /// Retention is over; the sweeper is on its way.
    Expired,
}

pub enum Description {
    Kept {
        state: RecordState,
        class: Class,
        revision: Revision,
        stored_at: Timestamp,
        due: Timestamp,
        due_by: String,
        fields: Vec<Field>,
        policy_version: PolicyVersion,
        /// What keeps it from being destroyed, however due it is.
        held_by: Vec<HoldKind>,
    },
    Erased(EraseReason),
}

/// A record's facts as of an instant and the holds on it, or what became of it.
pub(crate) enum LookedUp {
    Kept(Box<Loaded>, Vec<HoldKind>, Timestamp),
    Erased(EraseReason),
}

impl Vault {
    pub async fn describe(&self, call: &Call, token: &Token) -> Result<Description, Error> {
        let draft = Draft::of(call, Action::Describe, self.now());
        let answer = self.try_describe(call, token, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_describe(&self, call: &Call, token: &Token, draft: &Draft) -> Result<Description, Error> {
        Ok(match self.looked_up(call, token, draft).await? {
            LookedUp::Erased(reason) => Description::Erased(reason),
            LookedUp::Kept(loaded, held_by, now) => kept(*loaded, held_by, now),
        })
    }

    /// What the token leads to, once the log tells of the look.
    pub(crate) async fn looked_up(&self, call: &Call, token: &Token, draft: &Draft) -> Result<LookedUp, Error> {
        let digest = token.digest(&call.caller.tenant);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let found = self.store().read(|view| {
                let found = self.find(view, &digest, now)?;
                let held_by = match &found {
                    Found::Live(loaded) => in_force(view, &loaded.row)?.iter().map(|hold| hold.kind).collect(),
                    Found::Erased(_) | Found::Unknown => Vec::new(),
                };
                Ok((found, held_by))
            })?;
            match found {
                (Found::Unknown, _) => {
                    return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
                }
                (Found::Erased(tombstone), _) => {
                    self.log(draft.clone().done()).await?;
                    return Ok(LookedUp::Erased(tombstone.reason));
                }
                (Found::Live(loaded), held_by) => {
                    let entry = about(draft, &loaded).done();
                    let rests_on = (loaded.row.id, loaded.row.version);
                    let receipt = self.log_read("looked_up", move |tx| {
                        let unchanged = tx.record_version(rests_on.0)? == Some(rests_on.1);
                        if unchanged {
                            tx.log(entry.clone());
                        }
                        Ok(unchanged)
                    });
                    if receipt.await?.is_some() {
                        return Ok(LookedUp::Kept(loaded, held_by, now));
                    }
                }
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }
}

fn kept(loaded: Loaded, held_by: Vec<HoldKind>, now: Timestamp) -> Description {
    Description::Kept {
        state: if loaded.is_due(now) { RecordState::Expired } else { RecordState::Live },
        class: loaded.row.class,
        revision: loaded.row.revision,
        stored_at: loaded.row.stored_at,
        due: loaded.due.at,
        due_by: due_by(&loaded.due),
        fields: loaded.row.fields.iter().filter(|field| !loaded.is_over(Piece::Whole(*field))).collect(),
        policy_version: loaded.row.policy_version,
        held_by,
    }
}

/// Why a record is due when it is, in the vocabulary's words.
pub(crate) fn due_by(due: &Due) -> String {
    let by = match due.by {
        DueReason::Event(kind) | DueReason::Deadline(kind) => format!("after {kind}"),
        DueReason::Request => "on request".to_owned(),
        DueReason::ClosedLast(kind) => format!("at {kind}"),
        DueReason::Cap => "cap".to_owned(),
        DueReason::Inactive => "inactive".to_owned(),
        DueReason::Asked(reason) => format!("by {reason}"),
    };
    let waiting: Vec<_> = due.waiting_for.iter().map(|kind| kind.as_str()).collect();
    if waiting.is_empty() { by } else { format!("{by}, waiting for {}", waiting.join(", ")) }
}
