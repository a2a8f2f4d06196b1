//! Erasing a record on request. INVARIANT: it is answered when the record is gone from database and log file and the ledger
//! says so; erasing what is erased answers the same.

use super::call::{Call, Draft};
use super::destroy::{destroy, erased_at};
use super::loaded::Found;
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::field::IdempotencyKey;
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::EraseReason;
use crate::store::{StoreError, Tx};

pub struct Erase {
    pub key: IdempotencyKey,
    pub token: Token,
    pub reason: EraseReason,
}

impl Vault {
    /// Answers when the record was (or now is) destroyed.
    pub async fn erase(&self, call: &Call, ask: &Erase) -> Result<Timestamp, Error> {
        let draft = Draft::of(call, Action::Erase, self.now());
        let answer = self.try_erase(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_erase(&self, call: &Call, ask: &Erase, draft: &Draft) -> Result<Timestamp, Error> {
        let digest = ask.token.digest(&call.caller.tenant);
        let once = self.once(call, "erase", &ask.key, &[&digest.0, &[ask.reason.code()]]);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            // An erased record's keys are blanked, which is no refusal here: the erasure asked for has happened.
            match self.store().read(|view| Ok(once.before(view)))? {
                Ok(_) | Err(Error::Erased) => {}
                Err(Error::KeyReused) => {
                    return self.refuse(draft.clone(), RefusalCode::Conflict, Error::KeyReused).await;
                }
                Err(error) => return Err(error),
            }
            let loaded = match self.store().read(|view| self.find(view, &digest, now))? {
                Found::Unknown => return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
                Found::Erased(tombstone) => {
                    self.truncate_log().await?;
                    self.log_as("erase", draft.clone().action(Action::Replay).done()).await?;
                    return Ok(erased_at(&tombstone));
                }
                Found::Live(loaded) => loaded,
            };
            let entry = about(draft, &loaded).done();
            let row = once.row(loaded.row.id, digest, Vec::new(), now)?;
            let (record, reason) = (loaded.row, ask.reason);
            let write = move |tx: &mut Tx<'_>| {
                if tx.record_version(record.id)? != Some(record.version) {
                    return Err(StoreError::Raced);
                }
                tx.insert_idempotency(&row)?;
                destroy(tx, &record, reason, None, now)?;
                tx.log(entry.clone());
                Ok(())
            };
            match self.store().run("erase", write).await {
                Ok(()) => {
                    self.truncate_log().await?;
                    return Ok(now);
                }
                Err(StoreError::Raced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }
}
