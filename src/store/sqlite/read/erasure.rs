//! Reading holds, leaving subjects, erasures' stories and statistics. INVARIANT: as for every row, a column that does not
//! decode is named without its value.

use rusqlite::types::ValueRef;
use rusqlite::{Row as SqlRow, params};

use super::{Decoded, Reader, array, stamped, tenant, tombstone};
use crate::domain::id::{DekId, Epoch, ErasureId, HoldId, RecordId, SubjectId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{Class, EraseReason, HoldKind};
use crate::policy::cube::{Cell, Who};
use crate::policy::leaving::Leaving;
use crate::store::StoreError;
use crate::store::rows::TombstoneRow;
use crate::store::rows::erasure::{Erased, HoldRow, MonthRow, MonthState, TallyRow};
use crate::store::tx::Stamped;
use crate::store::tx::erasure::ErasureReads;

impl ErasureReads for Reader<'_> {
    fn deks_of(&self, record: RecordId) -> Result<Vec<(DekId, Epoch)>, StoreError> {
        let text = "-- deks_of\nSELECT id, epoch FROM dek WHERE record = ?1 ORDER BY id";
        self.all("dek", text, params![record.0], |row| Ok(Ok((DekId(row.get(0)?), Epoch(row.get(1)?)))))
    }

    fn subjects_unseen(&self, limit: usize) -> Result<Vec<SubjectId>, StoreError> {
        let text = "-- subjects_unseen\nSELECT id FROM subject WHERE unseen IS NOT NULL ORDER BY id LIMIT ?1";
        self.all("subject", text, params![limit], |row| row.get(0).map(|id| Ok(SubjectId(id))))
    }

    fn tombstones_of(
        &self,
        story: ErasureId,
        after: Option<TokenDigest>,
        limit: usize,
    ) -> Result<Vec<Stamped<TombstoneRow>>, StoreError> {
        let text = "-- tombstones_of\nSELECT * FROM tombstone WHERE story = ?1 AND (?2 IS NULL OR digest > ?2) \
                    ORDER BY digest LIMIT ?3";
        let after = after.map(|digest| digest.0);
        self.all("tombstone", text, params![story.0, after, limit], |row| stamped(row, tombstone))
    }

    fn hold(&self, id: HoldId) -> Result<Option<Stamped<HoldRow>>, StoreError> {
        self.first("hold", "-- hold\nSELECT * FROM hold WHERE id = ?1", params![id.0], |row| stamped(row, hold))
    }

    fn holds_of(&self, subject: SubjectId) -> Result<Vec<Stamped<HoldRow>>, StoreError> {
        let text = "-- holds_of\nSELECT * FROM hold WHERE subject = ?1 ORDER BY id";
        self.all("hold", text, params![subject.0], |row| stamped(row, hold))
    }

    fn holds(&self, tenant: &TenantId, after: HoldId, limit: usize) -> Result<Vec<Stamped<HoldRow>>, StoreError> {
        let text = "-- holds\nSELECT * FROM hold WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.all("hold", text, params![tenant.as_str(), after.0, limit], |row| stamped(row, hold))
    }

    fn holds_lifted(&self, before: Timestamp, limit: usize) -> Result<Vec<Stamped<HoldRow>>, StoreError> {
        let text = "-- holds_lifted\nSELECT * FROM hold WHERE lifted_at < ?1 ORDER BY id LIMIT ?2";
        self.all("hold", text, params![before.0, limit], |row| stamped(row, hold))
    }

    fn records_due_between(&self, after: Timestamp, until: Timestamp) -> Result<u64, StoreError> {
        let text = "-- records_due_between\nSELECT COUNT(*) FROM record WHERE due > ?1 AND due <= ?2";
        Ok(self.first("record", text, params![after.0, until.0], |row| row.get(0).map(Ok))?.unwrap_or(0))
    }

    fn month(&self, tenant: &TenantId, number: i64) -> Result<Option<Stamped<MonthRow>>, StoreError> {
        let text = "-- month\nSELECT * FROM month WHERE tenant = ?1 AND month = ?2";
        self.first("month", text, params![tenant.as_str(), number], |row| stamped(row, month))
    }

    fn months(&self, tenant: &TenantId, from: i64, until: i64) -> Result<Vec<Stamped<MonthRow>>, StoreError> {
        let text = "-- months\nSELECT * FROM month WHERE tenant = ?1 AND month BETWEEN ?2 AND ?3 ORDER BY month";
        self.all("month", text, params![tenant.as_str(), from, until], |row| stamped(row, month))
    }

    fn tally(&self, row: &TallyRow) -> Result<Option<Stamped<TallyRow>>, StoreError> {
        let text = "-- tally\nSELECT * FROM tally WHERE tenant = ?1 AND month = ?2 AND class = ?3 AND country = ?4 AND who = ?5";
        let key = params![row.tenant.as_str(), row.month, row.cell.class.code(), row.cell.country, row.who.0];
        self.first("tally", text, key, |row| stamped(row, tally))
    }

    fn tallies(&self, tenant: &TenantId, month: i64) -> Result<Vec<Stamped<TallyRow>>, StoreError> {
        let text = "-- tallies\nSELECT * FROM tally WHERE tenant = ?1 AND month = ?2";
        self.all("tally", text, params![tenant.as_str(), month], |row| stamped(row, tally))
    }

    fn has_tallies(&self, tenant: &TenantId, before: i64) -> Result<bool, StoreError> {
        let text = "-- has_tallies\nSELECT EXISTS (SELECT 1 FROM tally WHERE tenant = ?1 AND month < ?2)";
        Ok(self.first("tally", text, params![tenant.as_str(), before], |row| row.get(0).map(Ok))?.unwrap_or(false))
    }
}

pub(in crate::store::sqlite) fn hold(row: &SqlRow<'_>) -> Decoded<HoldRow> {
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let Some(kind) = HoldKind::from_code(row.get("kind")?) else { return Ok(Err("kind")) };
    let placed_by = row.get_ref("placed_by")?.as_str().ok().and_then(|path| path.parse().ok());
    let Some(placed_by) = placed_by else { return Ok(Err("placed_by")) };
    Ok(Ok(HoldRow {
        id: HoldId(row.get("id")?),
        tenant,
        subject: SubjectId(row.get("subject")?),
        record: Some(RecordId(row.get("record")?)).filter(|record| record.0 != 0),
        kind,
        reference: row.get("reference")?,
        placed_by,
        placed_at: Timestamp(row.get("placed_at")?),
        lifted_at: row.get::<_, Option<i64>>("lifted_at")?.map(Timestamp),
    }))
}

/// A column of the other state that is not empty would be no part of what the row's MAC covers.
pub(in crate::store::sqlite) fn month(row: &SqlRow<'_>) -> Decoded<MonthRow> {
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let (epoch, key, cube) = (Epoch(row.get("key_epoch")?), row.get::<_, Vec<u8>>("key")?, row.get("cube")?);
    let state = match row.get::<_, Option<i64>>("closed_at")?.map(Timestamp) {
        None if <Vec<u8>>::is_empty(&cube) => MonthState::Open { epoch, key },
        Some(at) if key.is_empty() && epoch.0 == 0 => MonthState::Closed { at, cube },
        _ => return Ok(Err("closed_at")),
    };
    Ok(Ok(MonthRow { tenant, month: row.get("month")?, state }))
}

pub(in crate::store::sqlite) fn tally(row: &SqlRow<'_>) -> Decoded<TallyRow> {
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let Some(class) = Class::from_code(row.get("class")?) else { return Ok(Err("class")) };
    let Some(who) = array(row, "who")? else { return Ok(Err("who")) };
    Ok(Ok(TallyRow {
        tenant,
        month: row.get("month")?,
        cell: Cell { class, country: row.get("country")? },
        who: Who(who),
        count: row.get("count")?,
    }))
}

/// A subject's leaving, and the record after which nobody has looked yet.
pub(super) fn leaving(row: &SqlRow<'_>) -> Decoded<(Option<Leaving>, Option<RecordId>)> {
    let unseen = row.get::<_, Option<i64>>("unseen")?.map(RecordId);
    let is_null = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)? == ValueRef::Null);
    if is_null("leaving_at")?
        && is_null("leaving_reason")?
        && is_null("leaving_story")?
        && is_null("leaving_last")?
        && unseen.is_none()
    {
        return Ok(Ok((None, None)));
    }
    let Some(reason) = EraseReason::from_code(row.get("leaving_reason")?) else { return Ok(Err("leaving_reason")) };
    let Some(story) = array(row, "leaving_story")? else { return Ok(Err("leaving_story")) };
    let (at, last) = (Timestamp(row.get("leaving_at")?), RecordId(row.get("leaving_last")?));
    Ok(Ok((Some(Leaving { at, reason, story: ErasureId(story), last }), unseen)))
}

/// What a tombstone knows of its erasure, and of the story it was part of.
pub(super) fn erased(row: &SqlRow<'_>) -> Decoded<(Option<Erased>, Option<ErasureId>)> {
    let is_null = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)? == ValueRef::Null);
    let story = if is_null("story")? {
        None
    } else {
        let Some(story) = array(row, "story")? else { return Ok(Err("story")) };
        Some(ErasureId(story))
    };
    if is_null("facts")? && story.is_none() {
        return Ok(Ok((None, None)));
    }
    let facts: Vec<u8> = row.get("facts")?;
    Ok(Erased::from_bytes(&facts).map(|erased| (Some(erased), story)).ok_or("facts"))
}
