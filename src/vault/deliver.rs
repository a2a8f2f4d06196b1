//! All that a carrier can do. INVARIANT: for a parcel granted to the calling certificate's name, in its window, below its read
//! limit, the address and the serial are opened, and never anything else of the record but the phone, where the policy's file
//! switches that on; every other case answers alike.

use super::call::{Call, Draft};
use super::error::unopened;
use super::loaded::{Held, Loaded, Why, as_it_left};
use super::shipment::{end_grant, end_grants, ends, serial_slot};
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::envelope::{Plaintext, Sealed, open};
use crate::domain::field::{Address, FieldValue, IdempotencyKey, Phone, Serial};
use crate::domain::time::{DAY, Timestamp};
use crate::domain::vocabulary::{EventKind, Field, Outcome, Purpose};
use crate::policy::facts::Event;
use crate::policy::release::decide;
use crate::policy::retention::{Piece, Policy};
use crate::store::ledger::{Learned, LedgerEntry};
use crate::store::rows::{GrantRow, RecordRow};
use crate::store::{StoreError, Tx, View};

/// How long after the signing, and after its grant's window, a carrier may still report it.
const LATE: i64 = 7 * DAY;

/// What a carrier gets.
pub struct Delivery {
    pub address: Address,
    /// As the shop granted it.
    pub serial: Plaintext,
    /// Only where the policy that the record was collected under switches it on.
    pub phone: Option<Phone>,
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
            // One snapshot for the verdict and the opening: what changes in between is a race, not an alarm.
            let found = self.store().read(|view| {
                let Some(found) = self.granted(view, call, serial, now)? else { return Ok(None) };
                let opened = match barred(call, &found, now) {
                    Some(code) => Err(code),
                    None => {
                        let policy = self.policy_of(&found.loaded.row)?;
                        open_delivery(view, call, &found, policy)?.ok_or(RefusalCode::Forbidden)
                    }
                };
                Ok(Some((found, opened)))
            })?;
            let Some((found, opened)) = found else {
                return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
            };
            let draft = about(draft, &found.loaded);
            let (held, outcomes) = match opened {
                Ok(opened) => opened,
                Err(code) => return self.refuse(draft, code, Error::NotFound).await,
            };
            let entry = draft.outcomes(outcomes).done();
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
            match self.store().read(|view| Ok(once.before(view)))? {
                Ok(None) => {}
                // SECURITY: confirmed is confirmed; a carrier is not told what became of the record since.
                Ok(Some(_)) | Err(Error::Erased) => {
                    self.log(draft.clone().action(Action::Replay).done()).await?;
                    return Ok(());
                }
                Err(Error::KeyReused) => {
                    return self.refuse(draft.clone(), RefusalCode::Conflict, Error::KeyReused).await;
                }
                Err(error) => return Err(error),
            }
            let found = self.store().read(|view| self.granted(view, call, &ask.serial, now))?;
            let Some(found) = found else {
                return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
            };
            let draft = about(draft, &found.loaded);
            if now < found.grant.not_before || now >= found.grant.not_after.plus(LATE) {
                return self.refuse(draft, RefusalCode::OutsideWindow, Error::NotFound).await;
            }
            let changed = self.delivered(&found, ask.delivered_at, now)?;
            let row = once.row(found.loaded.row.id, found.loaded.row.digest, vec![1], now)?;
            let leaving = found.loaded.subject.leaving;
            let (entry, grant, record) = (draft.done(), found.grant, found.loaded.row);
            let write = move |tx: &mut Tx<'_>| {
                tx.insert_idempotency(&row)?;
                end_grant(tx, grant.id, now)?;
                // The parcel is at its door: no other carrier's grant for it outlives that.
                end_grants(tx, grant.record, EventKind::Delivered, grant.parcel, now)?;
                if let Some((record, _)) = &changed {
                    as_it_left(tx, record.subject, leaving)?;
                    tx.update_record(record)?;
                }
                let news =
                    changed.as_ref().map_or(Learned::GrantEnded(grant.id), |(_, event)| Learned::Happened(*event));
                tx.note(LedgerEntry::learned(&record.tenant, record.digest, now, news));
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

    /// The record's row with the delivery among its facts. `None`: the grant ends and nothing else changes, because the record
    /// is due, or the shop has spoken of this parcel's delivery already (its word counts), or no more events fit.
    fn delivered(&self, found: &Granted, told: Timestamp, now: Timestamp) -> Result<Option<(RecordRow, Event)>, Error> {
        let (grant, loaded) = (&found.grant, &found.loaded);
        if loaded.is_due(now) || loaded.facts.when(EventKind::Delivered, grant.parcel).is_some() {
            return Ok(None);
        }
        // SECURITY: a carrier's clock starts retention neither outside of its own grant, nor ahead of time, nor so far back
        // that the record would be due before the shop could say that something is open.
        let earliest = grant.not_before.max(loaded.row.stored_at.min(now)).max(now.plus(-LATE));
        let latest = grant.not_after.min(now);
        let occurred_at = told.min(latest).max(earliest);
        let event = Event { kind: EventKind::Delivered, ordinal: grant.parcel, occurred_at, recorded_at: now };
        match self.with_event(loaded, event, self.inner.mark.tick(self.clock())) {
            Ok((row, _)) => Ok(Some((row, event))),
            Err(Error::Invalid(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The calling carrier's open grant for the serial, with its record. The index is bound to tenant and carrier, so another
    /// carrier's serial is not found at all.
    fn granted(
        &self,
        view: &View<'_>,
        call: &Call,
        serial: &Serial,
        now: Timestamp,
    ) -> Result<Option<Granted>, StoreError> {
        let caller = &call.caller;
        let Some(grant) = self.find_grant(view, &caller.tenant, &caller.name, serial)? else { return Ok(None) };
        let record = view.record(grant.record)?.ok_or(StoreError::Tampered { table: "shipment_grant" })?;
        Ok(Some(Granted { loaded: self.loaded(view, record, now)?, grant }))
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
    if grant.ended_at.is_some()
        || found.loaded.facts.events().any(|event| ends(event.kind, event.ordinal, grant.parcel))
    {
        return Some(RefusalCode::GrantEnded);
    }
    if now < grant.not_before || now >= grant.not_after {
        return Some(RefusalCode::OutsideWindow);
    }
    if grant.reads >= grant.read_limit {
        return Some(RefusalCode::ReadLimit);
    }
    // An address without its lines leads to no door.
    let is_over =
        [Piece::Whole(Field::Address), Piece::AddressLines].into_iter().any(|piece| found.loaded.is_over(piece));
    (found.loaded.is_due(now) || is_over).then_some(RefusalCode::Expired)
}

/// What was opened, and what the log will say of it.
type Opened = (Held<Delivery>, Vec<(Field, Outcome)>);

/// Gate 1 and the opening. `None`: not for this caller, or no address left.
fn open_delivery(view: &View<'_>, call: &Call, found: &Granted, policy: &Policy) -> Result<Option<Opened>, StoreError> {
    let loaded = &found.loaded;
    let Some(permit) = decide(call.caller.role, Purpose::Delivery, loaded.row.class) else { return Ok(None) };
    let permit = permit.widened(policy);
    if !loaded.row.fields.holds(Field::Address) {
        return Ok(None);
    }
    let key = loaded.key(view)?;
    let Some(FieldValue::Address(address)) = loaded.open_field(view, &key, Field::Address, &Why::Release(&permit))?
    else {
        return Ok(None);
    };
    let mut outcomes = vec![(Field::Address, Outcome::Granted)];
    let is_on = policy.carrier_also().contains(&Field::Phone) && loaded.row.fields.holds(Field::Phone);
    let phone = match is_on.then(|| loaded.open_field(view, &key, Field::Phone, &Why::Release(&permit))).transpose()? {
        Some(Some(FieldValue::Phone(phone))) => {
            outcomes.push((Field::Phone, Outcome::Granted));
            Some(phone)
        }
        _ => None,
    };
    let grant = &found.grant;
    let slot = serial_slot(&loaded.row.tenant, &loaded.row, grant.id, grant.dek);
    let sealed = Sealed::from_bytes(grant.serial.clone());
    let serial = open(&loaded.grant_key(view, grant)?, &slot, &sealed).map_err(unopened("shipment_grant"))?;
    Ok(Some((Held::new(Delivery { address, serial, phone }), outcomes)))
}
