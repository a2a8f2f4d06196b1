//! Tells webhooks what is due soon, before it goes. INVARIANT: a record is told of only if its own facts, authenticated and
//! recomputed, make it due within the webhook's days and no hold stands against it; of one due it is told once, and of another
//! due again. It is a forecast: what is held or waited for since then goes later.
//!
//! A pass goes along the index of what is due, a page at a time, and begins anew after a pause: a short one, and the longer the
//! more there was to look at. What it told is remembered in the commit that announces it, so a restart repeats nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::destroy::clear;
use super::{Error, Vault};
use crate::domain::announcement::{Announcement, News};
use crate::domain::fault::{Fault, planted};
use crate::domain::id::{AnnouncementId, HookName, RecordId};
use crate::domain::time::{MINUTE, SECOND, Timestamp};
use crate::policy::webhook::Subscription;
use crate::store::rows::webhook::{AnnouncementRow, ComingDue};
use crate::store::{StoreError, Tx, View};

/// Records looked at in one snapshot, and told of in one transaction: a few milliseconds.
const PAGE: usize = 100;
/// The pause between two passes: this, and a second for every so many records that were looked at.
const PAUSE: i64 = MINUTE;
const RECORDS_A_SECOND: i64 = 200;

/// Where each webhook's pass is; nothing that a restart could not begin anew.
#[derive(Default)]
pub(crate) struct Passes(Mutex<BTreeMap<HookName, Pass>>);

#[derive(Clone, Copy, Default)]
struct Pass {
    /// `None`: a new one begins at `next`, by the boot clock.
    after: Option<(Timestamp, RecordId)>,
    next: Option<i64>,
    looked_at: i64,
}

/// A record to tell of, and its version when it was judged.
#[derive(Clone)]
struct Soon {
    row: AnnouncementRow,
    record: RecordId,
    version: u64,
    due: Timestamp,
}

impl Vault {
    /// One page of every webhook's pass, if it is time; `true`: there is more to look at.
    pub async fn tell_due_soon(&self) -> Result<bool, Error> {
        let mut more = false;
        for hook in self.inner.parts.webhooks.iter().filter(|hook| hook.due_soon.is_some()) {
            more |= self.tell_page(hook).await?;
        }
        Ok(more)
    }

    async fn tell_page(&self, hook: &Subscription) -> Result<bool, Error> {
        let (boot, now) = (self.clock().boot(), self.now());
        let mut pass = self.pass_of(&hook.name);
        if pass.after.is_none() && pass.next.is_some_and(|next| boot < next) {
            return Ok(false);
        }
        let after = pass.after.unwrap_or((now, RecordId(i64::MAX)));
        // By the mark, which destruction waits for: a wall clock that leapt ahead makes nothing soon.
        let mark = self.inner.mark.tick(self.clock());
        let until = mark.plus(hook.due_soon.unwrap_or(0));
        let (page, soon) = self.store().read(|view| {
            let page = view.coming_due(&hook.name, after, until, PAGE)?;
            let mut soon = Vec::new();
            let is_ours = |coming: &&ComingDue| coming.tenant.as_ref() == Some(&hook.tenant);
            for coming in page.iter().filter(is_ours).filter(|coming| coming.told != Some(coming.due)) {
                match self.soon(view, hook, coming, (now, mark)) {
                    // One that cannot be judged is the sweeper's to tell of.
                    Err(StoreError::Tampered { .. } | StoreError::Corrupt { .. }) => {}
                    judged => soon.extend(judged?),
                }
            }
            Ok((page, soon))
        })?;
        self.announce_soon(hook, soon).await?;
        pass.looked_at += i64::try_from(page.len()).unwrap_or(0);
        pass = match page.last() {
            Some(last) if page.len() == PAGE => Pass { after: Some((last.due, last.record)), ..pass },
            _ => {
                let pause = PAUSE + pass.looked_at / RECORDS_A_SECOND * SECOND;
                Pass { next: Some(boot.saturating_add(pause)), ..Pass::default() }
            }
        };
        let more = pass.after.is_some();
        self.inner.due_soon.0.lock().unwrap_or_else(PoisonError::into_inner).insert(hook.name.clone(), pass);
        Ok(more)
    }

    fn pass_of(&self, hook: &HookName) -> Pass {
        self.inner.due_soon.0.lock().unwrap_or_else(PoisonError::into_inner).get(hook).copied().unwrap_or_default()
    }

    /// What is to be told of a record; `None`: nothing, or nothing new.
    fn soon(
        &self,
        view: &View<'_>,
        hook: &Subscription,
        coming: &ComingDue,
        (now, mark): (Timestamp, Timestamp),
    ) -> Result<Option<Soon>, StoreError> {
        let Some(row) = view.record(coming.record)? else { return Ok(None) };
        let loaded = self.loaded(view, row, now)?;
        let (due, reason) = (loaded.due.at, self.reason_for(&loaded)?);
        // The index may speak of a piece of the record, or be out of date.
        if loaded.row.tenant != hook.tenant || coming.told == Some(due) || !hook.is_soon(due, now, mark) {
            return Ok(None);
        }
        if clear(view, &loaded.row, reason)?.is_err() {
            return Ok(None);
        }
        let rule = self.policy_of(&loaded.row)?.cited(loaded.row.class, None, loaded.due.by);
        let news = News::DueSoon { due, rule: rule.map(|cited| cited.rule).unwrap_or_default() };
        let (tenant, class) = (hook.tenant.clone(), Some(loaded.row.class));
        let said = Announcement { tenant, record: loaded.row.digest, class, reason, at: now, news };
        let id = AnnouncementId(self.store().allocate()?);
        let row = AnnouncementRow { id, hook: hook.name.clone(), said, since: now };
        Ok(Some(Soon { row, record: coming.record, version: loaded.row.version, due }))
    }

    async fn announce_soon(&self, hook: &Subscription, soon: Vec<Soon>) -> Result<(), Error> {
        if soon.is_empty() {
            return Ok(());
        }
        let name = hook.name.clone();
        let write = move |tx: &mut Tx<'_>| {
            for Soon { row, record, version, due } in &soon {
                // Changed since it was judged: the next pass judges it again.
                if tx.record_version(*record)? != Some(*version) {
                    continue;
                }
                tx.insert_announcement(row)?;
                if !planted(Fault::DueSoonForgotten) {
                    tx.put_due_told(*record, &name, *due)?;
                }
            }
            Ok(())
        };
        Ok(self.store().run("due_soon", write).await?)
    }
}
