//! All that a carrier can do. INVARIANT: for a parcel granted to the calling certificate's name, in its window, below its read
//! limit, the address and the serial are opened, and never anything else of the record; every other case answers alike.

use super::call::{Call, Draft};
use super::error::unopened;
use super::loaded::{Held, Loaded, Why};
use super::shipment::{end_grant, serial_slot};
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::envelope::{Plaintext, Sealed, open};
use crate::domain::field::{Address, FieldValue, IdempotencyKey, Serial};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{EventKind, Field, Outcome, Purpose};
use crate::policy::facts::Event;
use crate::policy::release::decide;
use crate::store::rows::GrantRow;
use crate::store::{StoreError, Tx, View};

/// What a carrier gets.
pub struct Delivery {
    pub address: Address,
    /// As the shop granted it.
    pub serial: Plaintext,
}

pub struct ConfirmDelivery {
    pub key: IdempotencyKey,
    pub serial: Serial,
    pub delivered_at: Timestamp,
}

/// A grant with the record it opens.
struct Granted {
    grant: GrantRow,
    loaded: Loaded,
}

impl Vault {
    pub async fn get_delivery(&self, call: &Call, serial: &Serial) -> Result<Delivery, Error> {
        let draft = Draft::of(call, Action::GetDelivery, self.now()).purpose(Purpose::Delivery);
        let answer = self.try_get_delivery(call, serial, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_get_delivery(&self, call: &Call, serial: &Serial, draft: &Draft) -> Result<Delivery, Error> {
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let Some(found) = self.granted(call, serial, now)? else {
                return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
            };
            let draft = about(draft, &found.loaded);
            if let Some(code) = barred(call, &found, now) {
                return self.refuse(draft, code, Error::NotFound).await;
            }
            let Some(held) = self.store().read(|view| open_delivery(view, call, &found))? else {
                return self.refuse(draft, RefusalCode::Forbidden, Error::NotFound).await;
            };
            let entry = draft.outcomes(vec![(Field::Address, Outcome::Granted)]).done();
            let rests_on = (found.loaded.row.id, found.loaded.row.version);
            let grant = found.grant;
            let receipt = self.log_read("get_delivery", move |tx| {
                if tx.record_version(rests_on.0)? != Some(rests_on.1) || tx.grant(grant.id)?.as_ref() != Some(&grant) {
                    return Ok(false);
                }
                tx.update_grant(&GrantRow { reads: grant.reads + 1, ..grant.clone() })?;
                tx.log(entry.clone());
                Ok(true)
            });
            if let Some(receipt) = receipt.await? {
                return Ok(held.release(&receipt));
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    pub async fn confirm_delivery(&self, call: &Call, ask: &ConfirmDelivery) -> Result<(), Error> {
        let draft = Draft::of(call, Action::ConfirmDelivery, self.now());
        let answer = self.try_confirm(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_confirm(&self, call: &Call, ask: &ConfirmDelivery, draft: &Draft) -> Result<(), Error> {
        let request = [ask.serial.expose().as_bytes(), &ask.delivered_at.0.to_be_bytes()];
        let once = self.once(call, "confirm_delivery", &ask.key, &request);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            match self.done_before(&once, draft).await {
                Ok(None) => {}
                Ok(Some(_)) => {
                    self.log(draft.clone().action(Action::Replay).done()).await?;
                    return Ok(());
                }
                // SECURITY: a carrier is not told what became of the record.
                Err(Error::Erased) => return Err(Error::NotFound),
                Err(error) => return Err(error),
            }
            let Some(found) = self.granted(call, &ask.serial, now)? else {
                return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
            };
            let draft = about(draft, &found.loaded);
            if now < found.grant.not_before {
                return self.refuse(draft, RefusalCode::OutsideWindow, Error::NotFound).await;
            }
            // SECURITY: a carrier's clock cannot start retention outside of its own grant, nor ahead of time.
            let (earliest, latest) = (found.grant.not_before, found.grant.not_after.min(now));
            let event = Event {
                kind: EventKind::Delivered,
                ordinal: found.grant.parcel,
                occurred_at: ask.delivered_at.min(latest).max(earliest),
                recorded_at: now,
            };
            // Of a record that is due only the grant still ends.
            let changed = if found.loaded.is_due(now) { None } else { Some(self.with_event(&found.loaded, event)?.0) };
            let row = once.row(found.loaded.row.id, found.loaded.row.digest, vec![1], now)?;
            let (entry, grant) = (draft.done(), found.grant);
            let write = move |tx: &mut Tx<'_>| {
                tx.insert_idempotency(&row)?;
                end_grant(tx, &grant, now)?;
                if let Some(record) = &changed {
                    tx.update_record(record)?;
                }
                tx.log(entry.clone());
                Ok(())
            };
            match self.store().run("confirm_delivery", write).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Raced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// The calling carrier's open grant for the serial, with its record. The index is bound to tenant and carrier, so another
    /// carrier's serial is not found at all.
    fn granted(&self, call: &Call, serial: &Serial, now: Timestamp) -> Result<Option<Granted>, Error> {
        let caller = &call.caller;
        Ok(self.store().read(|view| {
            let Some(grant) = self.find_grant(view, &caller.tenant, &caller.name, serial)? else { return Ok(None) };
            let record = view.record(grant.record)?.ok_or(StoreError::Tampered { table: "shipment_grant" })?;
            Ok(Some(Granted { loaded: self.loaded(view, record, now)?, grant }))
        })?)
    }
}

/// Gate 2: the facts that stand against it, whatever a policy says.
fn barred(call: &Call, found: &Granted, now: Timestamp) -> Option<RefusalCode> {
    let (grant, record) = (&found.grant, &found.loaded.row);
    if grant.tenant != call.caller.tenant || record.tenant != call.caller.tenant {
        return Some(RefusalCode::Foreign);
    }
    if grant.carrier != call.caller.name {
        return Some(RefusalCode::NotGranted);
    }
    if grant.ended_at.is_some() {
        return Some(RefusalCode::GrantEnded);
    }
    if now < grant.not_before || now >= grant.not_after {
        return Some(RefusalCode::OutsideWindow);
    }
    if grant.reads >= grant.read_limit {
        return Some(RefusalCode::ReadLimit);
    }
    found.loaded.is_due(now).then_some(RefusalCode::Expired)
}

/// Gate 1 and the opening. `None`: not for this caller, or no address left.
fn open_delivery(view: &View<'_>, call: &Call, found: &Granted) -> Result<Option<Held<Delivery>>, StoreError> {
    let loaded = &found.loaded;
    let Some(permit) = decide(call.caller.role, Purpose::Delivery, loaded.row.class) else { return Ok(None) };
    if !loaded.row.fields.holds(Field::Address) {
        return Ok(None);
    }
    let key = loaded.key(view)?;
    let Some(FieldValue::Address(address)) = loaded.open_field(view, &key, Field::Address, &Why::Release(&permit))?
    else {
        return Ok(None);
    };
    let grant = &found.grant;
    let slot = serial_slot(&loaded.row.tenant, &loaded.row, grant.id, grant.dek);
    let sealed = Sealed::from_bytes(grant.serial.clone());
    let serial = open(&loaded.grant_key(view, grant)?, &slot, &sealed).map_err(unopened("shipment_grant"))?;
    Ok(Some(Held::new(Delivery { address, serial })))
}
