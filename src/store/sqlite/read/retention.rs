//! Reading the policy in force. INVARIANT: as for every row, a column that does not decode is named without its value.

use rusqlite::{Row as SqlRow, params};

use super::{Decoded, Reader, array, stamped, tenant};
use crate::domain::id::{PolicyVersion, TenantId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::rows::retention::PolicyInForceRow;
use crate::store::tx::Stamped;
use crate::store::tx::retention::RetentionReads;

impl RetentionReads for Reader<'_> {
    fn policy_in_force(&self, tenant: &TenantId) -> Result<Option<Stamped<PolicyInForceRow>>, StoreError> {
        let text = "-- policy_in_force\nSELECT * FROM policy_in_force WHERE tenant = ?1";
        self.first("policy_in_force", text, params![tenant.as_str()], |row| stamped(row, policy_in_force))
    }
}

fn policy_in_force(row: &SqlRow<'_>) -> Decoded<PolicyInForceRow> {
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let Some(version) = array(row, "version")? else { return Ok(Err("version")) };
    let allowed = match row.get::<_, Option<Vec<u8>>>("allowed")?.map(TryInto::try_into) {
        None => None,
        Some(Ok(version)) => Some(PolicyVersion(version)),
        Some(Err(_)) => return Ok(Err("allowed")),
    };
    Ok(Ok(PolicyInForceRow { tenant, version: PolicyVersion(version), since: Timestamp(row.get("since")?), allowed }))
}
