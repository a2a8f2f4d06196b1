//! Doing a mutation once. INVARIANT: within its window an idempotency key, scoped to tenant, caller and verb, leads to one
//! effect: the same request is answered as before, another one is refused. What is kept are keyed digests; an erasure blanks
//! the request's, and from then on the key answers "erased".

use super::call::{Call, Draft};
use super::{Error, Vault};
use crate::audit::entry::RefusalCode;
use crate::crypto::mac::idempotency_digest;
use crate::domain::field::IdempotencyKey;
use crate::domain::id::RecordId;
use crate::domain::time::{DAY, Timestamp};
use crate::domain::token::TokenDigest;
use crate::store::rows::IdempotencyRow;
use crate::store::{StoreError, View};

/// How long a key is remembered.
pub(crate) const WINDOW: i64 = 7 * DAY;

/// A key and its request, digested under every living epoch, the active one first.
pub(crate) struct Once {
    digests: Vec<([u8; 16], [u8; 16])>,
}

impl Vault {
    /// `request`: the parts of the request that make it this request, in canonical bytes.
    pub(crate) fn once(&self, call: &Call, verb: &'static str, key: &IdempotencyKey, request: &[&[u8]]) -> Once {
        let path = call.caller.path();
        let scope = [path.as_bytes(), verb.as_bytes()];
        let digests = self.keyring().epochs().map(|epoch| {
            let key = idempotency_digest(epoch, &[b"key", scope[0], scope[1], key.expose().as_bytes()]);
            let request: Vec<&[u8]> = [&[b"request".as_slice()], scope.as_slice(), request].concat();
            (key, idempotency_digest(epoch, &request))
        });
        Once { digests: digests.collect() }
    }
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
        for (key, request) in &self.digests {
            let Some(row) = view.idempotency(key)? else { continue };
            if row.request == [0; 16] {
                return Err(Error::Erased);
            }
            if row.request != *request {
                return Err(Error::KeyReused);
            }
            return Ok(Some(row));
        }
        Ok(None)
    }

    /// The row of a key whose request and answer were forgotten with what it led to.
    pub(crate) fn blanked(&self, view: &View<'_>) -> Result<Option<IdempotencyRow>, StoreError> {
        for (key, _) in &self.digests {
            if let Some(row) = view.idempotency(key)?.filter(|row| row.request == [0; 16]) {
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
    ) -> Result<IdempotencyRow, StoreError> {
        let (digest, request) = *self.digests.first().ok_or(StoreError::Closed)?;
        Ok(IdempotencyRow { digest, request, record, token, result, recorded_at: now })
    }
}
