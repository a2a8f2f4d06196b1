//! Writing the outbox of the webhooks. INVARIANT: as for every statement, it answers how many rows it changed.

use rusqlite::params;

use super::super::read::Reader;
use crate::domain::id::{AnnouncementId, HookName, RecordId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::rows::webhook::AnnouncementRow;
use crate::store::tx::Stamp;
use crate::store::tx::webhook::WebhookWrites;

impl WebhookWrites for Reader<'_> {
    fn insert_announcement(&self, row: &AnnouncementRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_announcement\nINSERT INTO announcement (id, hook, tenant, topic, digest, class, reason, at, \
                    due, rule, since, epoch, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        let (said, (due, rule)) = (&row.said, row.news());
        let columns = params![
            row.id.0,
            row.hook.as_str(),
            said.tenant.as_str(),
            said.topic().code(),
            said.record.0,
            row.class(),
            said.reason.code(),
            said.at.0,
            due.0,
            rule,
            row.since.0,
            stamp.epoch.0,
            stamp.mac.as_bytes(),
        ];
        self.change("announcement", text, columns)
    }

    fn delete_announcement(&self, id: AnnouncementId) -> Result<usize, StoreError> {
        self.change("announcement", "-- delete_announcement\nDELETE FROM announcement WHERE id = ?1", params![id.0])
    }

    fn drop_announcements(&self, hook: &str, tenant: &str, limit: usize) -> Result<usize, StoreError> {
        let text = "-- drop_announcements\nDELETE FROM announcement WHERE id IN (SELECT id FROM announcement \
                    WHERE hook = ?1 AND tenant = ?2 LIMIT ?3)";
        self.change("announcement", text, params![hook, tenant, limit])
    }

    fn put_due_told(&self, record: RecordId, hook: &HookName, due: Timestamp) -> Result<usize, StoreError> {
        let text = "-- put_due_told\nINSERT INTO due_told (record, hook, due) VALUES (?1, ?2, ?3) \
                    ON CONFLICT (record, hook) DO UPDATE SET due = excluded.due";
        self.change("due_told", text, params![record.0, hook.as_str(), due.0])
    }

    fn delete_due_told(&self, record: RecordId) -> Result<usize, StoreError> {
        self.change("due_told", "-- delete_due_told\nDELETE FROM due_told WHERE record = ?1", params![record.0])
    }

    fn drop_due_told(&self, hook: &str, limit: usize) -> Result<usize, StoreError> {
        let text = "-- drop_due_told\nDELETE FROM due_told WHERE (record, hook) IN (SELECT record, hook FROM due_told \
                    WHERE hook = ?1 LIMIT ?2)";
        self.change("due_told", text, params![hook, limit])
    }
}
