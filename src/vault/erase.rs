//! Erasing a record on request. INVARIANT: it is answered when the record is gone from database and log file and the ledger
//! says so, with a receipt of that; erasing what is erased answers the same; a hold that stands against it is named.

use super::call::{Call, Draft};
use super::destroy::{Told, clear, destroy};
use super::loaded::Found;
use super::receipt::Gone;
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::fault::{Fault, planted};
use crate::domain::field::IdempotencyKey;
use crate::domain::token::Token;
use crate::domain::vocabulary::EraseReason;
use crate::store::{StoreError, Tx};

pub struct Erase {
    pub key: IdempotencyKey,
    pub token: Token,
    pub reason: EraseReason,
}

impl Vault {
    /// Answers when the record was (or now is) destroyed, with the receipt.
    pub async fn erase(&self, call: &Call, ask: &Erase) -> Result<Gone, Error> {
        let draft = Draft::of(call, Action::Erase, self.now());
        let answer = self.try_erase(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_erase(&self, call: &Call, ask: &Erase, draft: &Draft) -> Result<Gone, Error> {
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
            let found = self.store().read(|view| {
                let found = self.find(view, &digest, now)?;
                let held = match &found {
                    Found::Live(loaded) => clear(view, &loaded.row, ask.reason)?.err(),
                    Found::Erased(_) | Found::Unknown => None,
                };
                Ok((found, held))
            })?;
            let loaded = match found.0 {
                Found::Unknown => return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
                Found::Erased(tombstone) => {
                    self.truncate_log().await?;
                    self.log_as("erase", draft.clone().action(Action::Replay).done()).await?;
                    return Ok(self.gone(&tombstone));
                }
                Found::Live(loaded) => loaded,
            };
            if let Some(kind) = found.1 {
                return self.refuse(about(draft, &loaded), RefusalCode::Held, Error::Held(kind)).await;
            }
            let (in_backups_by, entry) = (self.in_backups_by(now), about(draft, &loaded).done());
            let hearers = self.hearers(&loaded.row.tenant)?;
            let told = Told { at: now, in_backups_by, entry, tally: None, story: None, hearers };
            let row = once.row(loaded.row.id, digest, Vec::new(), now)?;
            let (record, reason) = (loaded.row, ask.reason);
            let write = move |tx: &mut Tx<'_>| {
                if tx.record_version(record.id)? != Some(record.version) {
                    return Err(StoreError::Raced);
                }
                tx.insert_idempotency(&row)?;
                let Ok(cleared) = clear(tx, &record, reason)? else { return Err(StoreError::Raced) };
                destroy(tx, cleared, told.clone())
            };
            if planted(Fault::EarlyErasure) {
                return Ok(Gone { at: now, receipt: None });
            }
            match self.store().run("erase", write).await {
                Ok(()) => {
                    self.truncate_log().await?;
                    return self.gone_by_digest(&digest);
                }
                Err(StoreError::Raced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }
}
