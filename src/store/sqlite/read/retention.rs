//! Reading the policy in force. INVARIANT: as for every row, a column that does not decode is named without its value.

use rusqlite::{Row as SqlRow, params};

use super::{Decoded, Reader, array, tenant};
use crate::domain::id::PolicyVersion;
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
