//! Receipts of what was erased, made on demand from what the erasure's own commit has left. INVARIANT: a receipt exists from
//! the instant of that commit on, says the same whenever it is asked for, and goes with the tombstone.

use super::call::{Call, Draft};
use super::destroy::erased_at;
use super::loaded::Found;
use super::tokenize::about;
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::audit::receipt::Receipt;
use crate::crypto::note::{NAME, key_text};
use crate::domain::time::Timestamp;
use crate::domain::token::{Token, TokenDigest};
use crate::store::rows::TombstoneRow;

/// That a record is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gone {
    pub at: Timestamp,
    /// The signed receipt; `None`: erased before there were any.
    pub receipt: Option<String>,
}

impl Vault {
    /// The receipt of an erased record, by its token.
    pub async fn receipt_of(&self, call: &Call, token: &Token) -> Result<String, Error> {
        let draft = Draft::of(call, Action::ReceiptOf, self.now());
        let answer = self.try_receipt(call, token, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_receipt(&self, call: &Call, token: &Token, draft: &Draft) -> Result<String, Error> {
        let digest = token.digest(&call.caller.tenant);
        match self.store().read(|view| self.find(view, &digest, self.now()))? {
            Found::Unknown => self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
            Found::Live(loaded) => self.refuse(about(draft, &loaded), RefusalCode::NotErased, Error::NotErased).await,
            Found::Erased(tombstone) => match self.signed(&tombstone) {
                Some(receipt) => {
                    // Who asks again after a crash may ask before the log was truncated.
                    self.truncate_log().await?;
                    self.log(draft.clone().about(tombstone.class, None).done()).await?;
                    Ok(receipt)
                }
                None => self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
            },
        }
    }

    /// What is told of a tombstone to whoever erased its record.
    pub(crate) fn gone(&self, tombstone: &TombstoneRow) -> Gone {
        Gone { at: erased_at(tombstone), receipt: self.signed(tombstone) }
    }

    /// The same by the record's digest, right after its erasure.
    pub(crate) fn gone_by_digest(&self, digest: &TokenDigest) -> Result<Gone, Error> {
        let tombstone = self.store().read(|view| view.tombstone(digest))?;
        tombstone.map(|tombstone| self.gone(&tombstone)).ok_or(Error::Tampered { table: "tombstone" })
    }

    pub(crate) fn signed(&self, tombstone: &TombstoneRow) -> Option<String> {
        let erased = tombstone.erased.as_ref()?;
        let receipt = Receipt {
            record: tombstone.digest,
            tenant: tombstone.tenant.clone(),
            class: tombstone.class,
            reason: tombstone.reason,
            online_at: erased.at,
            in_backups_by: erased.in_backups_by,
            keys: erased.keys.clone(),
            log_entry: erased.entry,
            ledger_line: erased.line,
        };
        Some(receipt.sign(self.keyring().signer()))
    }

    /// The public key that receipts are verified with, as it is handed around.
    pub fn public_key(&self) -> String {
        key_text(NAME, &self.keyring().signer().public())
    }
}
