//! Moving rows to another epoch. INVARIANT: every statement is an update of a row that is as it was when the change was prepared;
//! none inserts.

use rusqlite::params;

use super::super::read::Reader;
use crate::crypto::mac::{IndexTag, Mac};
use crate::domain::id::{DekId, Epoch};
use crate::policy::cube::Cell;
use crate::store::StoreError;
use crate::store::tx::Stamp;
use crate::store::tx::rewrap::{RewrapWrites, RowKey};

impl RewrapWrites for Reader<'_> {
    fn rewrap_dek(&self, id: DekId, from: Epoch, to: Epoch, wrapped: &[u8]) -> Result<usize, StoreError> {
        let text =
            "-- rewrap_dek\nUPDATE dek SET sealed_under = ?3 + 16777216, wrapped = ?4 WHERE id = ?1 AND epoch = ?2";
        self.change("dek", text, params![id.0, from.0, to.0, wrapped])
    }

    fn retag_index(&self, id: i64, from: Epoch, to: Epoch, tag: &IndexTag) -> Result<usize, StoreError> {
        let text = "-- retag_index\nUPDATE index_tag SET epoch = ?3, tag = ?4 WHERE id = ?1 AND epoch = ?2";
        self.change("index_tag", text, params![id, from.0, to.0, tag.0])
    }

    fn restamp(&self, key: &RowKey, was: &Mac, stamp: &Stamp) -> Result<usize, StoreError> {
        let (was, to, mac) = (was.as_bytes(), stamp.epoch.0, stamp.mac.as_bytes());
        match key {
            RowKey::Record(id) => {
                let text = "-- restamp_record\nUPDATE record SET epoch = ?2, mac = ?3 WHERE id = ?4 AND mac = ?1";
                self.change("record", text, params![was, to, mac, id.0])
            }
            RowKey::Subject(id) => {
                let text = "-- restamp_subject\nUPDATE subject SET epoch = ?2, mac = ?3 WHERE id = ?4 AND mac = ?1";
                self.change("subject", text, params![was, to, mac, id.0])
            }
            RowKey::Grant(id) => {
                let text =
                    "-- restamp_grant\nUPDATE shipment_grant SET epoch = ?2, mac = ?3 WHERE id = ?4 AND mac = ?1";
                self.change("shipment_grant", text, params![was, to, mac, id.0])
            }
            RowKey::Tombstone(digest) => {
                let text =
                    "-- restamp_tombstone\nUPDATE tombstone SET epoch = ?2, mac = ?3 WHERE digest = ?4 AND mac = ?1";
                self.change("tombstone", text, params![was, to, mac, digest.0])
            }
            RowKey::Hold(id) => {
                let text = "-- restamp_hold\nUPDATE hold SET epoch = ?2, mac = ?3 WHERE id = ?4 AND mac = ?1";
                self.change("hold", text, params![was, to, mac, id.0])
            }
            RowKey::Month(tenant, month) => {
                let text = "-- restamp_month\nUPDATE month SET epoch = ?2, mac = ?3 \
                            WHERE tenant = ?4 AND month = ?5 AND mac = ?1";
                self.change("month", text, params![was, to, mac, tenant.as_str(), month])
            }
            RowKey::Tally(tenant, month, Cell { class, country }, who) => {
                let text = "-- restamp_tally\nUPDATE tally SET epoch = ?2, mac = ?3 \
                            WHERE tenant = ?4 AND month = ?5 AND class = ?6 AND country = ?7 AND who = ?8 AND mac = ?1";
                let columns = params![was, to, mac, tenant.as_str(), month, class.code(), country, who.0];
                self.change("tally", text, columns)
            }
            RowKey::Meta(key) => {
                let text = "-- restamp_meta\nUPDATE meta SET epoch = ?2, mac = ?3 WHERE key = ?4 AND mac = ?1";
                self.change("meta", text, params![was, to, mac, key])
            }
            RowKey::Caller(id) => {
                let text = "-- restamp_caller\nUPDATE caller SET epoch = ?2, mac = ?3 \
                            WHERE tenant = ?4 AND role = ?5 AND name = ?6 AND mac = ?1";
                self.change("caller", text, params![was, to, mac, id.tenant.as_str(), id.role as u8, id.name.as_str()])
            }
            RowKey::Approval(tenant, id) => {
                let text = "-- restamp_approval\nUPDATE approval SET epoch = ?2, mac = ?3 \
                            WHERE tenant = ?4 AND id = ?5 AND mac = ?1";
                self.change("approval", text, params![was, to, mac, tenant.as_str(), id.0])
            }
            RowKey::Announcement(id) => {
                let text =
                    "-- restamp_announcement\nUPDATE announcement SET epoch = ?2, mac = ?3 WHERE id = ?4 AND mac = ?1";
                self.change("announcement", text, params![was, to, mac, id.0])
            }
            RowKey::PolicyInForce(tenant) => {
                let text =
                    "-- restamp_policy\nUPDATE policy_in_force SET epoch = ?2, mac = ?3 WHERE tenant = ?4 AND mac = ?1";
                self.change("policy_in_force", text, params![was, to, mac, tenant.as_str()])
            }
        }
    }

    fn retag(&self, key: &RowKey, was_mac: &Mac, stamp: &Stamp, tag: &IndexTag) -> Result<usize, StoreError> {
        let (was, to, mac) = (was_mac.as_bytes(), stamp.epoch.0, stamp.mac.as_bytes());
        match key {
            RowKey::Subject(id) => {
                let text =
                    "-- retag_subject\nUPDATE subject SET epoch = ?2, mac = ?3, tag = ?4 WHERE id = ?5 AND mac = ?1";
                self.change("subject", text, params![was, to, mac, tag.0, id.0])
            }
            RowKey::Grant(id) => {
                let text = "-- retag_grant\nUPDATE shipment_grant SET epoch = ?2, mac = ?3, tag = ?4 WHERE id = ?5 AND mac = ?1";
                self.change("shipment_grant", text, params![was, to, mac, tag.0, id.0])
            }
            // Rows of no other table have a tag.
            _ => self.restamp(key, was_mac, stamp),
        }
    }
}
