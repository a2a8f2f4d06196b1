//! Reading the policy in force, and the index of dues. INVARIANT: as for every row, a column that does not decode is named without its value.

use rusqlite::{Row as SqlRow, params};

use super::{Decoded, Reader, array, tenant};
use crate::domain::id::{PolicyVersion, RecordId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::rows::retention::PolicyInForceRow;
use crate::store::tx::callers::Each;
use crate::store::tx::retention::RetentionReads;

impl RetentionReads for Reader<'_> {
    fn policies_in_force(&self) -> Result<Vec<Each<PolicyInForceRow>>, StoreError> {
        let text = "-- policies_in_force\nSELECT * FROM policy_in_force ORDER BY tenant";
        self.each("policy_in_force", text, params![], policy_in_force)
    }

    fn records_due_after(
        &self,
        (due, id): (Timestamp, RecordId),
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, RecordId)>, StoreError> {
        let place = |row: &SqlRow<'_>| Ok(Ok((Timestamp(row.get(0)?), RecordId(row.get(1)?))));
        // Two searches: SQLite finds a place among a million equal dues only by an equation.
        let equal = "-- records_due_after\nSELECT due, id FROM record WHERE due = ?1 AND id > ?2 AND due <= ?3 \
                     ORDER BY id LIMIT ?4";
        let mut found = self.all("record", equal, params![due.0, id.0, until.0, limit], place)?;
        let later = "-- records_due_after\nSELECT due, id FROM record WHERE due > ?1 AND due <= ?2 \
                     ORDER BY due, id LIMIT ?3";
        found.extend(self.all("record", later, params![due.0, until.0, limit - found.len()], place)?);
        Ok(found)
    }
}

pub(super) fn policy_in_force(row: &SqlRow<'_>) -> Decoded<PolicyInForceRow> {
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let Some(version) = array(row, "version")? else { return Ok(Err("version")) };
    let allowed = match row.get::<_, Option<Vec<u8>>>("allowed")?.map(TryInto::try_into) {
        None => None,
        Some(Ok(version)) => Some(PolicyVersion(version)),
        Some(Err(_)) => return Ok(Err("allowed")),
    };
    Ok(Ok(PolicyInForceRow { tenant, version: PolicyVersion(version), since: Timestamp(row.get("since")?), allowed }))
}
