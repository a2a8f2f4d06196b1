//! The rows of the outbox. INVARIANT: as for every row, `canonical` names every column.
//!
//! A row has a MAC, as a forged one would have a shop delete what belongs to a living record. It is not in the state's digest: it
//! is work in progress, here for seconds, and what it tells of is in there, as a tombstone.

use super::Row;
use crate::crypto::slot::Canonical;
use crate::domain::announcement::{Announcement, News};
use crate::domain::id::{AnnouncementId, HookName, RecordId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::Class;

/// Something to tell to one webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnouncementRow {
    pub id: AnnouncementId,
    pub hook: HookName,
    pub said: Announcement,
    /// When it was put there; what it tells of may be older.
    pub since: Timestamp,
}

impl AnnouncementRow {
    /// The column `class`; 0: it is not known.
    pub(crate) fn class(&self) -> u8 {
        self.said.class.map_or(0, Class::code)
    }

    /// The columns `due` and `rule`.
    pub(crate) fn news(&self) -> (Timestamp, &str) {
        match &self.said.news {
            News::Erased => (Timestamp(0), ""),
            News::DueSoon { due, rule } => (*due, rule),
        }
    }
}

impl Row for AnnouncementRow {
    const TABLE: &'static str = "announcement";
    fn canonical(&self) -> Canonical {
        let (due, rule) = self.news();
        let Announcement { tenant, record, reason, at, .. } = &self.said;
        Canonical::new("strongroom/row/announcement")
            .i64(self.id.0)
            .bytes(self.hook.as_str().as_bytes())
            .bytes(tenant.as_str().as_bytes())
            .u8(self.said.topic().code())
            .bytes(&record.0)
            .u8(self.class())
            .u8(reason.code())
            .i64(at.0)
            .i64(due.0)
            .bytes(rule.as_bytes())
            .i64(self.since.0)
    }
}

/// A record that the index has as due, and which due of it a webhook was told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ComingDue {
    pub record: RecordId,
    pub due: Timestamp,
    /// `None`: a text that names no tenant.
    pub tenant: Option<TenantId>,
    pub told: Option<Timestamp>,
}

/// What waits in the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waiting {
    pub announcements: u64,
    /// When the first of them was written.
    pub since: Option<Timestamp>,
}
