//! Shipment grants: one parcel of one record for one carrier. INVARIANT: the serial lies sealed under the grant's own key, which
//! is destroyed when the grant ends; what finds it is a blind index bound to tenant and carrier.

use super::call::{Call, Draft};
use super::error::unopened;
use super::loaded::Found;
use super::tokenize::about;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::envelope::{Dek, seal};
use crate::crypto::keyring::EpochKeys;
use crate::crypto::mac::{IndexTag, index_tag};
use crate::crypto::slot::{DekUse, Part, SealSlot};
use crate::domain::field::{FieldReason, IdempotencyKey, Serial, SerialPattern};
use crate::domain::id::{CallerName, DekId, GrantId, RecordId, Revision, TenantId};
use crate::domain::time::{DAY, Timestamp};
use crate::domain::token::Token;
use crate::domain::vocabulary::{EventKind, Field};
use crate::policy::retention::Piece;
use crate::store::ledger::{Learned, LedgerEntry};
use crate::store::rows::{DekRow, GrantRow, RecordRow};
use crate::store::{StoreError, Tx, View};

/// The longest window a grant may have.
const LONGEST: i64 = 366 * DAY;
const MOST_READS: u32 = 1_000;

pub struct GrantShipment {
    pub key: IdempotencyKey,
    pub token: Token,
    pub serial: Serial,
    pub carrier: CallerName,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub read_limit: u32,
    pub parcel: u32,
}

pub struct RevokeShipment {
    pub key: IdempotencyKey,
    pub grant: GrantId,
}

impl Vault {
    /// How the carrier's serials look, if the configuration says so.
    pub fn serial_pattern(&self, carrier: &CallerName) -> Option<&SerialPattern> {
        self.inner.parts.serial_patterns.get(carrier)
    }

    pub async fn grant_shipment(&self, call: &Call, ask: &GrantShipment) -> Result<GrantId, Error> {
        let draft = Draft::of(call, Action::GrantShipment, self.now());
        let answer = self.try_grant(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_grant(&self, call: &Call, ask: &GrantShipment, draft: &Draft) -> Result<GrantId, Error> {
        let digest = ask.token.digest(&call.caller.tenant);
        let numbers = [ask.not_before.0, ask.not_after.0, ask.read_limit.into(), ask.parcel.into()];
        let numbers: Vec<u8> = numbers.iter().flat_map(|number: &i64| number.to_be_bytes()).collect();
        let request = [&digest.0, ask.serial.expose().as_bytes(), ask.carrier.as_str().as_bytes(), &numbers];
        let once = self.once(call, "grant_shipment", &ask.key, &request);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            if let Some(row) = self.done_before(&once, draft).await? {
                self.log(draft.clone().action(Action::Replay).done()).await?;
                return Ok(GrantId(i64::from_be_bytes(row.result.try_into().unwrap_or_default())));
            }
            let loaded = match self.store().read(|view| self.find(view, &digest, now))? {
                Found::Unknown => return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await,
                Found::Erased(_) => return self.refuse(draft.clone(), RefusalCode::Erased, Error::Erased).await,
                Found::Live(loaded) => loaded,
            };
            let draft = about(draft, &loaded);
            let is_over = |piece| loaded.is_over(piece);
            if loaded.is_due(now) || is_over(Piece::Whole(Field::Address)) || is_over(Piece::AddressLines) {
                return self.refuse(draft, RefusalCode::Expired, Error::Expired).await;
            }
            window(ask, now)?;
            if loaded.facts.events().any(|event| ends(event.kind, event.ordinal, ask.parcel)) {
                return Err(Error::invalid("parcel", FieldReason::Repeated));
            }
            if !loaded.row.fields.holds(Field::Address) {
                return Err(Error::invalid("address", FieldReason::Missing));
            }
            if self
                .store()
                .read(|view| self.find_grant(view, &call.caller.tenant, &ask.carrier, &ask.serial))?
                .is_some()
            {
                return Err(Error::invalid("serial", FieldReason::Repeated));
            }
            let (grant, dek) = self.sealed_grant(&loaded.row, ask)?;
            let id = grant.id;
            let row = once.row(loaded.row.id, digest, id.0.to_be_bytes().to_vec(), now)?;
            let entry = draft.done();
            let rests_on = (loaded.row.id, loaded.row.version);
            let write = move |tx: &mut Tx<'_>| {
                if tx.record_version(rests_on.0)? != Some(rests_on.1) {
                    return Err(StoreError::Raced);
                }
                tx.insert_idempotency(&row)?;
                tx.insert_grant(&grant)?;
                tx.insert_dek(&dek)?;
                tx.log(entry.clone());
                Ok(())
            };
            match self.store().run("grant_shipment", write).await {
                Ok(()) => return Ok(id),
                Err(StoreError::Raced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    pub async fn revoke_shipment(&self, call: &Call, ask: &RevokeShipment) -> Result<(), Error> {
        let draft = Draft::of(call, Action::RevokeShipment, self.now());
        let answer = self.try_revoke(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_revoke(&self, call: &Call, ask: &RevokeShipment, draft: &Draft) -> Result<(), Error> {
        let once = self.once(call, "revoke_shipment", &ask.key, &[&ask.grant.0.to_be_bytes()]);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            // An erased record's keys are blanked; then the grant is gone too, and unknown.
            match self.store().read(|view| Ok(once.before(view)))? {
                Ok(_) | Err(Error::Erased) => {}
                Err(Error::KeyReused) => {
                    return self.refuse(draft.clone(), RefusalCode::Conflict, Error::KeyReused).await;
                }
                Err(error) => return Err(error),
            }
            // Another tenant's grant is as unknown as one that never was.
            let found = self.store().read(|view| {
                let Some(grant) = view.grant(ask.grant)? else { return Ok(None) };
                let record = view.record(grant.record)?.ok_or(StoreError::Tampered { table: "shipment_grant" })?;
                Ok(Some((grant, self.loaded(view, record, now)?)))
            })?;
            let Some((grant, loaded)) = found.filter(|(grant, _)| grant.tenant == call.caller.tenant) else {
                return self.refuse(draft.clone(), RefusalCode::Unknown, Error::NotFound).await;
            };
            let draft = about(draft, &loaded);
            if grant.ended_at.is_some() {
                self.log(draft.action(Action::Replay).done()).await?;
                return Ok(());
            }
            let row = once.row(loaded.row.id, loaded.row.digest, vec![1], now)?;
            let (entry, record) = (draft.done(), loaded.row);
            let write = move |tx: &mut Tx<'_>| {
                tx.insert_idempotency(&row)?;
                end_grant(tx, grant.id, now)?;
                tx.note(LedgerEntry::learned(&record.tenant, record.digest, now, Learned::GrantEnded(grant.id)));
                tx.log(entry.clone());
                Ok(())
            };
            match self.store().run("revoke_shipment", write).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Raced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// The open grant of a carrier for a serial.
    pub(crate) fn find_grant(
        &self,
        view: &View<'_>,
        tenant: &TenantId,
        carrier: &CallerName,
        serial: &Serial,
    ) -> Result<Option<GrantRow>, StoreError> {
        for epoch in view.keyring().epochs() {
            if let Some(grant) = view.grant_by_tag(&serial_tag(epoch, tenant, carrier, serial.expose().as_bytes()))? {
                return Ok(Some(grant));
            }
        }
        Ok(None)
    }

    fn sealed_grant(&self, record: &RecordRow, ask: &GrantShipment) -> Result<(GrantRow, DekRow), StoreError> {
        let keyring = self.keyring();
        let epoch = keyring.active();
        let (id, dek) = (GrantId(self.store().allocate()?), DekId(self.store().allocate()?));
        let key = Dek::generate(self.entropy());
        let wrap_slot = record.wrap_slot(epoch.number(), dek, DekUse::Grant(id));
        let wrapped = self.wrapped(dek, record.id, &wrap_slot, &key)?;
        let slot = serial_slot(&record.tenant, record, id, dek);
        let serial = seal(&key, &slot, ask.serial.expose().as_bytes(), self.entropy()).map_err(unopened("dek"))?;
        let grant = GrantRow {
            id,
            tenant: record.tenant.clone(),
            record: record.id,
            parcel: ask.parcel,
            carrier: ask.carrier.clone(),
            tag: Some(serial_tag(epoch, &record.tenant, &ask.carrier, ask.serial.expose().as_bytes())),
            not_before: ask.not_before,
            not_after: ask.not_after,
            read_limit: ask.read_limit,
            reads: 0,
            ended_at: None,
            dek,
            serial: serial.as_bytes().to_vec(),
        };
        Ok((grant, wrapped))
    }
}

/// Ends a grant that is open: its key goes, and with it the serial and the way to find it. Reads that count on it meanwhile
/// do not hold it up.
pub(crate) fn end_grant(tx: &Tx<'_>, id: GrantId, now: Timestamp) -> Result<(), StoreError> {
    let Some(grant) = tx.grant(id)?.filter(|grant| grant.ended_at.is_none()) else { return Err(StoreError::Raced) };
    if tx.dek(grant.dek)?.is_none() {
        return Err(StoreError::Tampered { table: "dek" });
    }
    tx.delete_dek(grant.dek)?;
    tx.update_grant(&GrantRow { tag: None, ended_at: Some(now), serial: Vec::new(), ..grant })
}

/// Ends what an event leaves no reason for.
pub(crate) fn end_grants(
    tx: &Tx<'_>,
    record: RecordId,
    kind: EventKind,
    ordinal: u32,
    now: Timestamp,
) -> Result<(), StoreError> {
    for grant in tx.grants_of(record)? {
        if grant.ended_at.is_none() && ends(kind, ordinal, grant.parcel) {
            end_grant(tx, grant.id, now)?;
        }
    }
    Ok(())
}

/// Whether nothing of the parcel is left to deliver once this has happened.
pub(crate) fn ends(kind: EventKind, ordinal: u32, parcel: u32) -> bool {
    match kind {
        EventKind::Delivered | EventKind::Returned => parcel == ordinal,
        EventKind::Cancelled => true,
        EventKind::Placed
        | EventKind::Dispatched
        | EventKind::Completed
        | EventKind::AfterSalesOpened
        | EventKind::AfterSalesClosed
        | EventKind::RefundOpened
        | EventKind::RefundSettled
        | EventKind::AccountActive
        | EventKind::AccountCancelled
        | EventKind::ClearingRequested
        | EventKind::MinorFound => false,
    }
}

/// Where a grant's serial is sealed. The revision is the record's business, not the grant's: a correction keeps its parcels.
pub(crate) fn serial_slot<'a>(tenant: &'a TenantId, record: &RecordRow, id: GrantId, dek: DekId) -> SealSlot<'a> {
    SealSlot { tenant, record: record.id, part: Part::Serial(id), revision: Revision(0), dek }
}

pub(crate) fn serial_tag(epoch: &EpochKeys, tenant: &TenantId, carrier: &CallerName, serial: &[u8]) -> IndexTag {
    let value = [carrier.as_str().as_bytes(), &[0], serial].concat();
    index_tag(epoch, tenant, "serial", &value)
}

fn window(ask: &GrantShipment, now: Timestamp) -> Result<(), Error> {
    let length = ask.not_after.since(ask.not_before);
    if length <= 0 || length > LONGEST || ask.not_after <= now {
        return Err(Error::invalid("not_after", FieldReason::NotAWindow));
    }
    if ask.read_limit == 0 || ask.read_limit > MOST_READS {
        return Err(Error::invalid("read_limit", FieldReason::NotAWindow));
    }
    Ok(())
}
