//! Writing the policy in force. INVARIANT: as for every statement, it answers how many rows it changed.

use rusqlite::params;

use super::super::read::Reader;
use crate::store::StoreError;
use crate::store::rows::retention::PolicyInForceRow;
use crate::store::tx::Stamp;
use crate::store::tx::retention::RetentionWrites;

impl RetentionWrites for Reader<'_> {
    fn put_policy_in_force(&self, row: &PolicyInForceRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- put_policy_in_force\nINSERT INTO policy_in_force (tenant, version, since, allowed, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (tenant) DO UPDATE SET version = excluded.version, \
                    since = excluded.since, allowed = excluded.allowed, epoch = excluded.epoch, mac = excluded.mac";
        let allowed = row.allowed.as_ref().map(|version| version.0);
        self.change(
            "policy_in_force",
            text,
            params![row.tenant.as_str(), row.version.0, row.since.0, allowed, stamp.epoch.0, stamp.mac.as_bytes(),],
        )
    }
}
