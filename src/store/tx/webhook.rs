//! The outbox of the webhooks in transactions. INVARIANT: a row is authenticated as it is read and as it is written; one that was
//! altered or made outside the vault is named and never announced.

use super::{Stamp, Tx, View, one};
use crate::domain::id::{AnnouncementId, HookName, RecordId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::rows::webhook::{AnnouncementRow, ComingDue, Waiting};
use crate::store::tx::Stamped;

/// Rows by their numbers, each with its own verdict, as one that was altered must not hold up the others.
pub(crate) type Numbered<R> = Vec<(AnnouncementId, Result<R, StoreError>)>;

pub(crate) trait WebhookReads {
    fn announcements(&self, hook: &HookName, limit: usize) -> Result<Numbered<Stamped<AnnouncementRow>>, StoreError>;
    fn hooks_heard_of(&self) -> Result<Vec<(String, String)>, StoreError>;
    fn hooks_told(&self) -> Result<Vec<String>, StoreError>;
    fn waiting(&self) -> Result<Waiting, StoreError>;
    fn coming_due(
        &self,
        hook: &HookName,
        after: (Timestamp, RecordId),
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ComingDue>, StoreError>;
}

pub(crate) trait WebhookWrites {
    fn insert_announcement(&self, row: &AnnouncementRow, stamp: &Stamp) -> Result<usize, StoreError>;
    fn delete_announcement(&self, id: AnnouncementId) -> Result<usize, StoreError>;
    fn drop_announcements(&self, hook: &str, tenant: &str, limit: usize) -> Result<usize, StoreError>;
    fn put_due_told(&self, record: RecordId, hook: &HookName, due: Timestamp) -> Result<usize, StoreError>;
    fn delete_due_told(&self, record: RecordId) -> Result<usize, StoreError>;
    fn drop_due_told(&self, hook: &str, limit: usize) -> Result<usize, StoreError>;
}

impl View<'_> {
    /// What a webhook is to be told, oldest first.
    pub fn announcements(&self, hook: &HookName, limit: usize) -> Result<Numbered<AnnouncementRow>, StoreError> {
        let rows = self.reads.announcements(hook, limit)?.into_iter();
        Ok(rows.map(|(id, row)| (id, row.and_then(|row| self.checked(row)))).collect())
    }

    /// Every webhook and tenant that something waits for, as the rows say, which may be anything.
    pub fn hooks_heard_of(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.reads.hooks_heard_of()
    }

    /// Every webhook that was told of something due soon.
    pub fn hooks_told(&self) -> Result<Vec<String>, StoreError> {
        self.reads.hooks_told()
    }

    /// How much waits in the outbox, and since when.
    pub fn waiting(&self) -> Result<Waiting, StoreError> {
        self.reads.waiting()
    }

    /// Records that the index has as due behind that place in it, to be judged by their own facts.
    pub fn coming_due(
        &self,
        hook: &HookName,
        after: (Timestamp, RecordId),
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ComingDue>, StoreError> {
        self.reads.coming_due(hook, after, until, limit)
    }
}

impl Tx<'_> {
    pub fn insert_announcement(&self, row: &AnnouncementRow) -> Result<(), StoreError> {
        one(self.writes.insert_announcement(row, &self.stamp(row)))
    }

    /// One that is gone already was taken twice.
    pub fn delete_announcement(&self, id: AnnouncementId) -> Result<(), StoreError> {
        self.writes.delete_announcement(id).map(drop)
    }

    /// Drops what waits for a webhook and tenant, at most `limit`; answers how many went.
    pub fn drop_announcements(&self, hook: &str, tenant: &str, limit: usize) -> Result<usize, StoreError> {
        self.writes.drop_announcements(hook, tenant, limit)
    }

    /// Remembers that a webhook was told of this due of a record, and of no earlier one.
    pub fn put_due_told(&self, record: RecordId, hook: &HookName, due: Timestamp) -> Result<(), StoreError> {
        one(self.writes.put_due_told(record, hook, due))
    }

    /// Forgets what was told beforehand of a record that goes.
    pub fn delete_due_told(&self, record: RecordId) -> Result<(), StoreError> {
        self.writes.delete_due_told(record).map(drop)
    }

    /// Forgets what a webhook was told beforehand, at most `limit`; answers how much that was.
    pub fn drop_due_told(&self, hook: &str, limit: usize) -> Result<usize, StoreError> {
        self.writes.drop_due_told(hook, limit)
    }
}
