//! What webhooks are told of: an outbox, filled by the very commits that it tells of. INVARIANT: an erasure that is on disk has a
//! row for every webhook that hears of erasures, and one that is not has none; a row leaves only when its webhook has taken it,
//! it lies in the dead-letter file, or its webhook is configured no more; a row that was altered is never announced. So whatever
//! crashes, an announcement is made at least once, and of nothing that did not happen. A restored store makes those again that the
//! ledger tells of since the backup, of records that it never had too: its outbox does not say whether anybody heard them.

use super::call::Draft;
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::domain::announcement::{Announcement, Message};
use crate::domain::fault::{Fault, planted};
use crate::domain::id::{AnnouncementId, HookName, TenantId};
use crate::domain::time::Timestamp;
use crate::store::rows::webhook::{AnnouncementRow, Waiting};
use crate::store::{StoreError, Tx};

/// Announcements in one message.
const BATCH: usize = 100;
/// Rows dropped in one transaction.
const CHUNK: usize = 1_000;

/// The webhooks that hear of a record's erasure, each with the place in the outbox that is theirs.
#[derive(Clone)]
#[must_use]
pub(crate) struct Hearers {
    places: Vec<(AnnouncementId, HookName)>,
    /// The time by the clock: what is erased goes by the mark, or by the ledger, which may be days behind.
    since: Timestamp,
}

impl Hearers {
    pub(crate) fn are_none(&self) -> bool {
        self.places.is_empty()
    }

    /// Of an erasure, within the transaction that erases.
    pub(crate) fn hear_of(&self, tx: &Tx<'_>, said: &Announcement) -> Result<(), StoreError> {
        if planted(Fault::AnnouncementForgotten) {
            return Ok(());
        }
        self.places.iter().try_for_each(|(id, hook)| {
            let (hook, said) = (hook.clone(), said.clone());
            tx.insert_announcement(&AnnouncementRow { id: *id, hook, said, since: self.since })
        })
    }
}

/// A message on its way, until it was taken or given up.
pub struct Outgoing {
    pub message: Message,
    pub hook: HookName,
    /// When the first of its announcements was put into the outbox.
    pub since: Timestamp,
    tenant: TenantId,
    ids: Vec<AnnouncementId>,
}

impl Outgoing {
    /// How many announcements it tells.
    pub fn count(&self) -> usize {
        self.ids.len()
    }
}

impl Vault {
    /// Who hears of erasures of the tenant's records.
    pub(crate) fn hearers(&self, tenant: &TenantId) -> Result<Hearers, StoreError> {
        let hear = self.inner.parts.webhooks.iter().filter(|hook| hook.erased && hook.tenant == *tenant);
        let placed = hear.map(|hook| Ok((AnnouncementId(self.store().allocate()?), hook.name.clone())));
        Ok(Hearers { places: placed.collect::<Result<_, StoreError>>()?, since: self.now() })
    }

    /// The next message for a webhook: its oldest announcements, of one topic. What fails its authentication is told of, and
    /// goes: nobody can say any more what it was to tell.
    pub async fn outgoing(&self, hook: &HookName) -> Result<Option<Outgoing>, Error> {
        let mut rows: Vec<AnnouncementRow> = Vec::new();
        let mut spoiled = Vec::new();
        for (id, row) in self.store().read(|view| view.announcements(hook, BATCH))? {
            match row {
                Ok(row) => rows.push(row),
                Err(StoreError::Tampered { .. } | StoreError::Corrupt { .. }) => spoiled.push(id),
                Err(error) => return Err(error.into()),
            }
        }
        if !spoiled.is_empty() {
            self.drop_spoiled(hook, spoiled).await?;
        }
        let Some(first) = rows.first() else { return Ok(None) };
        let (tenant, topic) = (first.said.tenant.clone(), first.said.topic());
        rows.retain(|row| row.said.topic() == topic && row.said.tenant == tenant);
        let (ids, since) = (rows.iter().map(|row| row.id).collect(), rows.iter().map(|row| row.since).min());
        let said: Vec<Announcement> = rows.into_iter().map(|row| row.said).collect();
        let Some((message, since)) = Message::of(&said).zip(since) else { return Ok(None) };
        Ok(Some(Outgoing { message, hook: hook.clone(), since, tenant, ids }))
    }

    /// The webhook has taken it.
    pub async fn taken(&self, outgoing: &Outgoing) -> Result<(), Error> {
        self.leaves(outgoing, Action::Announce).await
    }

    /// It lies in the dead-letter file.
    pub async fn given_up(&self, outgoing: &Outgoing) -> Result<(), Error> {
        self.leaves(outgoing, Action::GiveUpAnnouncing).await
    }

    /// For how long it has waited, in µs.
    pub fn has_waited(&self, outgoing: &Outgoing) -> i64 {
        self.now().since(outgoing.since)
    }

    /// What waits in the outbox.
    pub fn waiting(&self) -> Result<Waiting, Error> {
        Ok(self.store().read(|view| view.waiting())?)
    }

    async fn leaves(&self, outgoing: &Outgoing, action: Action) -> Result<(), Error> {
        let draft = Draft::by_vault(&outgoing.tenant, self.new_request(), action, self.now());
        let entry = draft.count(u32::try_from(outgoing.count()).unwrap_or(u32::MAX)).done();
        let ids = outgoing.ids.clone();
        let write = move |tx: &mut Tx<'_>| {
            ids.iter().try_for_each(|id| tx.delete_announcement(*id))?;
            tx.log(entry.clone());
            Ok(())
        };
        Ok(self.store().run("announced", write).await?)
    }

    async fn drop_spoiled(&self, hook: &HookName, spoiled: Vec<AnnouncementId>) -> Result<(), Error> {
        let count = spoiled.len();
        tracing::error!(%hook, count, "announcements fail their authentication and are not made: they were altered");
        let tenant = self.inner.parts.webhooks.iter().find(|known| known.name == *hook).map(|hook| hook.tenant.clone());
        let entry = tenant.map(|tenant| {
            let draft = Draft::by_vault(&tenant, self.new_request(), Action::Tamper, self.now());
            draft.count(u32::try_from(count).unwrap_or(u32::MAX)).refused(RefusalCode::Tampered)
        });
        let write = move |tx: &mut Tx<'_>| {
            spoiled.iter().try_for_each(|id| tx.delete_announcement(*id))?;
            entry.iter().for_each(|entry| tx.log(entry.clone()));
            Ok(())
        };
        Ok(self.store().run("announced", write).await?)
    }

    /// Drops what waits for webhooks that the configuration names no more, for this tenant or at all.
    pub(crate) async fn drop_unheard(&self) -> Result<(), Error> {
        let hooks = &self.inner.parts.webhooks;
        let (pairs, told) = self.store().read(|view| Ok((view.hooks_heard_of()?, view.hooks_told()?)))?;
        let is_heard = |(hook, tenant): &(String, String)| {
            hooks.iter().any(|known| known.name.as_str() == hook && known.tenant.as_str() == tenant)
        };
        for (hook, tenant) in pairs.into_iter().filter(|pair| !is_heard(pair)) {
            let mut dropped = 0_usize;
            loop {
                let pair = (hook.clone(), tenant.clone());
                let write = move |tx: &mut Tx<'_>| tx.drop_announcements(&pair.0, &pair.1, CHUNK);
                let gone = self.store().run("drop_announcements", write).await?;
                dropped += gone;
                if gone < CHUNK {
                    break;
                }
            }
            tracing::warn!(
                dropped,
                "announcements were dropped: the configuration does not name their webhook any more"
            );
            // The columns may say anything; only a tenant that is served has a log to tell.
            let served = tenant.parse().ok().filter(|tenant| self.serves(tenant));
            if let Some(tenant) = served {
                let draft = Draft::by_vault(&tenant, self.new_request(), Action::DropAnnouncements, self.now());
                let entry = draft.count(u32::try_from(dropped).unwrap_or(u32::MAX)).done();
                self.log_as("drop_announcements", entry).await?;
            }
        }
        let is_asked =
            |hook: &String| hooks.iter().any(|known| known.due_soon.is_some() && known.name.as_str() == hook);
        for hook in told.into_iter().filter(|hook| !is_asked(hook)) {
            loop {
                let name = hook.clone();
                let write = move |tx: &mut Tx<'_>| tx.drop_due_told(&name, CHUNK);
                if self.store().run("drop_announcements", write).await? < CHUNK {
                    break;
                }
            }
        }
        Ok(())
    }
}
