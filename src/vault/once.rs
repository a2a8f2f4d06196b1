//! Doing a mutation once. INVARIANT: within its window an idempotency key, scoped to tenant, caller and verb, leads to one
//! effect: the same request is answered as before, another one is refused. What is kept are keyed digests; an erasure blanks
//! the request's, and from then on the key answers "erased".

use sha2::{Digest, Sha256};

use super::call::{Call, Draft};
use super::{Error, Vault};
use crate::audit::entry::RefusalCode;
use crate::crypto::keyring::EpochKeys;
use crate::crypto::mac::idempotency_digest;
use crate::domain::field::IdempotencyKey;
use crate::domain::id::RecordId;
use crate::domain::time::{DAY, Timestamp};
use crate::domain::token::TokenDigest;
use crate::store::rows::{IdempotencyRow, NewIdempotency};
use crate::store::{StoreError, View};

/// How long a key is remembered.
pub(crate) const WINDOW: i64 = 7 * DAY;

/// A key and its request. What is kept of them here is not keyed yet and never stored: it is keyed under the epochs of whichever
/// keyring is asked about, as that may change between two tries.
pub(crate) struct Once {
    vault: Vault,
    key: [u8; 32],
    request: [u8; 32],
}

impl Vault {
    /// `request`: the parts of the request that make it this request, in canonical bytes.
    pub(crate) fn once(&self, call: &Call, verb: &'static str, key: &IdempotencyKey, request: &[&[u8]]) -> Once {
        let path = call.caller.path();
        let scope = [path.as_bytes(), verb.as_bytes()];
        let key = [&scope[..], &[key.expose().as_bytes()]].concat();
        Once { vault: self.clone(), key: framed(&key), request: framed(&[&scope[..], request].concat()) }
    }
}

/// SHA-256 over length-prefixed parts.
fn framed(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl Vault {
    /// What the key has led to. Logs the refusal when that was another request, or is erased.
    pub(crate) async fn done_before(&self, once: &Once, draft: &Draft) -> Result<Option<IdempotencyRow>, Error> {
        match self.store().read(|view| Ok(once.before(view)))? {
            Ok(found) => Ok(found),
            Err(Error::Erased) => self.refuse(draft.clone(), RefusalCode::Erased, Error::Erased).await,
            Err(Error::KeyReused) => self.refuse(draft.clone(), RefusalCode::Conflict, Error::KeyReused).await,
            // What was altered is logged as that, by who watches the use case.
            Err(error) => Err(error),
        }
    }
}

impl Once {
    /// What the key has led to; an error when that was another request, or what it led to is erased.
    pub(crate) fn before(&self, view: &View<'_>) -> Result<Option<IdempotencyRow>, Error> {
        for epoch in view.keyring().epochs() {
            let Some(row) = view.idempotency(&self.key_under(epoch))? else { continue };
            if row.request == [0; 16] {
                return Err(Error::Erased);
            }
            if row.request != self.request_under(epoch) {
                return Err(Error::KeyReused);
            }
            return Ok(Some(row));
        }
        Ok(None)
    }

    /// The row of a key whose request and answer were forgotten with what it led to.
    pub(crate) fn blanked(&self, view: &View<'_>) -> Result<Option<IdempotencyRow>, StoreError> {
        for epoch in view.keyring().epochs() {
            if let Some(row) = view.idempotency(&self.key_under(epoch))?.filter(|row| row.request == [0; 16]) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The row to insert beside the effect; a second one of the same key fails as `Raced`.
    pub(crate) fn row(
        &self,
        record: RecordId,
        token: TokenDigest,
        result: Vec<u8>,
        now: Timestamp,
    ) -> Result<NewIdempotency, StoreError> {
        let keyring = self.vault.keyring();
        let active = keyring.active();
        let (digest, request) = (self.key_under(active), self.request_under(active));
        let row = IdempotencyRow { digest, request, record, token, result, recorded_at: now };
        let elsewhere = keyring.epochs().skip(1).map(|epoch| self.key_under(epoch)).collect();
        Ok(NewIdempotency { row, epoch: active.number(), elsewhere })
    }

    fn key_under(&self, epoch: &EpochKeys) -> [u8; 16] {
        idempotency_digest(epoch, &[b"key", &self.key])
    }

    fn request_under(&self, epoch: &EpochKeys) -> [u8; 16] {
        idempotency_digest(epoch, &[b"request", &self.request])
    }
}
