//! Reading callers and approvals. INVARIANT: as for every row, a column that does not decode is named without its value.

use rusqlite::types::ValueRef;
use rusqlite::{Row as SqlRow, params};

use super::{Decoded, Reader, array, sql, stamped, tenant};
use crate::domain::caller::{CallerId, CertificateHash, Role, SpkiHash};
use crate::domain::id::{ApprovalId, TenantId};
use crate::domain::time::Timestamp;
use crate::policy::approval::{Approval, RequestDigest, Spoken, Verb};
use crate::policy::enrolment::{Enrolment, Pins, Standing};
use crate::store::StoreError;
use crate::store::rows::callers::StateColumns;
use crate::store::tx::Stamped;
use crate::store::tx::callers::{CallerReads, Each};

/// Enough for a day's requests and what became of the last ones.
const APPROVALS: usize = 1_000;

impl CallerReads for Reader<'_> {
    fn enrolment(&self, id: &CallerId) -> Result<Option<Stamped<Enrolment>>, StoreError> {
        let text = "-- enrolment\nSELECT * FROM caller WHERE tenant = ?1 AND role = ?2 AND name = ?3";
        let key = params![id.tenant.as_str(), id.role as u8, id.name.as_str()];
        self.first("caller", text, key, |row| stamped(row, enrolment))
    }

    fn enrolments(&self) -> Result<Vec<Each<Enrolment>>, StoreError> {
        self.each("caller", "-- enrolments\nSELECT * FROM caller ORDER BY tenant, role, name", params![], enrolment)
    }

    fn approval(&self, tenant: &TenantId, id: ApprovalId) -> Result<Option<Stamped<Approval>>, StoreError> {
        let text = "-- approval\nSELECT * FROM approval WHERE tenant = ?1 AND id = ?2";
        self.first("approval", text, params![tenant.as_str(), id.0], |row| stamped(row, approval))
    }

    fn approvals(&self, tenant: &TenantId, asked_since: Timestamp) -> Result<Vec<Each<Approval>>, StoreError> {
        let text = "-- approvals\nSELECT * FROM approval WHERE tenant = ?1 AND asked_at >= ?2 \
                    ORDER BY asked_at DESC LIMIT ?3";
        self.each("approval", text, params![tenant.as_str(), asked_since.0, APPROVALS], approval)
    }
}

impl Reader<'_> {
    /// Every row, each with its own verdict.
    pub(super) fn each<R>(
        &self,
        table: &'static str,
        text: &'static str,
        params: impl rusqlite::Params,
        decode: fn(&SqlRow<'_>) -> Decoded<R>,
    ) -> Result<Vec<Each<R>>, StoreError> {
        let mut statement = self.connection.prepare_cached(text).map_err(|source| sql(table, source))?;
        let mut rows = statement.query(params).map_err(|source| sql(table, source))?;
        let mut each = Vec::new();
        while let Some(row) = rows.next().map_err(|source| sql(table, source))? {
            each.push(match stamped(row, decode) {
                Ok(decoded) => decoded.map_err(|column| StoreError::Corrupt { table, column }),
                Err(source) => Err(sql(table, source)),
            });
        }
        Ok(each)
    }
}

pub(in super::super) fn enrolment(row: &SqlRow<'_>) -> Decoded<Enrolment> {
    let Some(role) = Role::from_code(row.get("role")?) else { return Ok(Err("role")) };
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let Some(name) = row.get_ref("name")?.as_str().ok().and_then(|text| text.parse().ok()) else {
        return Ok(Err("name"));
    };
    let Some(issuer) = array(row, "issuer")? else { return Ok(Err("issuer")) };
    let Some(standing) = Standing::from_code(row.get("standing")?) else { return Ok(Err("standing")) };
    let pins = hashes(row, "pins")?.map(|keys| keys.into_iter().map(SpkiHash).collect());
    let Some(pins) = pins.and_then(|keys| Pins::new(role, keys).ok()) else { return Ok(Err("pins")) };
    let Some(suspended) = hashes(row, "suspended")? else { return Ok(Err("suspended")) };
    let Some(line) = caller(row, "line")? else { return Ok(Err("line")) };
    let enrolled_by = if is_null(row, "enrolled_by")? { None } else { Some(caller(row, "enrolled_by")?) };
    let Some(enrolled_by) = enrolled_by.map_or(Some(None), |by| by.map(Some)) else { return Ok(Err("enrolled_by")) };
    Ok(Ok(Enrolment {
        id: CallerId { tenant, role, name },
        issuer: SpkiHash(issuer),
        standing,
        pins,
        suspended: suspended.into_iter().map(CertificateHash).collect(),
        enrolled_by,
        line,
        since: Timestamp(row.get("since")?),
        version: row.get("version")?,
    }))
}

pub(in super::super) fn approval(row: &SqlRow<'_>) -> Decoded<Approval> {
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let Some(id) = array(row, "id")? else { return Ok(Err("id")) };
    let Some(verb) = Verb::from_code(row.get("verb")?) else { return Ok(Err("verb")) };
    let Some(digest) = array(row, "digest")? else { return Ok(Err("digest")) };
    let Some(asked) = spoken(row, ["asked_by", "asked_key", "asked_at"])? else { return Ok(Err("asked_by")) };
    let columns = ["said_by", "said_key", "said_at"];
    let said = if columns.iter().try_fold(true, |all, column| Ok::<_, rusqlite::Error>(all && is_null(row, column)?))? {
        None
    } else {
        let Some(said) = spoken(row, columns)? else { return Ok(Err("said_by")) };
        Some(said)
    };
    let used_at = row.get::<_, Option<i64>>("used_at")?.map(Timestamp);
    let Some(state) = StateColumns::state(row.get("state")?, said, used_at) else { return Ok(Err("state")) };
    Ok(Ok(Approval {
        id: ApprovalId(id),
        tenant,
        verb,
        digest: RequestDigest(digest),
        about: row.get("about")?,
        asked,
        expires_at: Timestamp(row.get("expires_at")?),
        state,
    }))
}

/// `None`: at least one of the three is absent or none of ours.
fn spoken(row: &SqlRow<'_>, [by, key, at]: [&str; 3]) -> rusqlite::Result<Option<Spoken>> {
    let (Some(by), Some(key)) = (caller(row, by)?, array(row, key)?) else { return Ok(None) };
    Ok(row.get::<_, Option<i64>>(at)?.map(|at| Spoken { by, key: SpkiHash(key), at: Timestamp(at) }))
}

fn is_null(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<bool> {
    Ok(row.get_ref(column)? == ValueRef::Null)
}

fn caller(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Option<CallerId>> {
    Ok(row.get_ref(column)?.as_str().ok().and_then(|path| path.parse().ok()))
}

fn hashes(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Option<Vec<[u8; 32]>>> {
    let bytes: Vec<u8> = row.get(column)?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    Ok(rest.is_empty().then(|| hashes.to_vec()))
}
