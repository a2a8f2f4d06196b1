//! Applying the erasure ledger to a database that is older than it. INVARIANT: before an older copy serves, everything that was
//! destroyed since is destroyed in it again, and it knows again what was learned since of the records that it has: their events,
//! ended grants, holds, leaving subjects, and who may come in. So a restored copy keeps nothing that had to go, and lets nobody do
//! what nobody could do any more; what came into the vault after the copy is lost, and is told as lost.
//!
//! A start after a crash finds the ledger ahead of the database by one commit at most: its lines were on disk, and the commit was
//! not. Nobody was told of it, so only its erasures are applied: the ledger must never tell of one that did not happen.

use std::collections::BTreeMap;

use super::call::Draft;
use super::correct::{Next, replace_noted};
use super::destroy::{Told, count_holds, destroy_noted};
use super::erase_subject::BEFORE_ALL;
use super::loaded::{Found, Loaded};
use super::shipment::{end_grant, end_grants};
use super::{Error, Vault};
use crate::audit::entry::{Action, Entry};
use crate::domain::announcement::{Announcement, News};
use crate::domain::fault::{Fault, planted};
use crate::domain::id::{Revision, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{EraseReason, Field};
use crate::policy::enrolment::Enrolment;
use crate::policy::retention::Piece;
use crate::store::ledger::{Learned, LedgerEntry, LedgerEvent, Placed, read_after};
use crate::store::rows::erasure::HoldRow;
use crate::store::rows::{RecordRow, SubjectRow};
use crate::store::{StoreError, Tx};

/// Approvals that go in one transaction.
const CHUNK: usize = 256;

/// Where a database that the ledger is ahead of comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// It was there at the start: after a crash, or as an older copy that somebody put in its place.
    Start,
    /// It was restored from a backup.
    Backup,
}

/// What applying the ledger did to a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// How many lines of the ledger it had not heard of.
    pub lines: u64,
    /// Records destroyed again.
    pub erased: u64,
    /// Records that go on without a value that was corrected or had served its time.
    pub superseded: u64,
    /// Values that went with those: the shop must send what it corrected again.
    pub values: u64,
    pub events: u64,
    pub grants_ended: u64,
    pub holds_placed: u64,
    pub holds_lifted: u64,
    /// Subjects whose erasure goes on.
    pub leaving: u64,
    pub callers: u64,
    /// Lines about what this copy never had, or knew already.
    pub beside: u64,
    /// Approvals that were given before, and are void.
    pub approvals: u64,
}

/// What one line did.
type Effect = Option<fn(&mut Applied) -> &mut u64>;

impl Vault {
    /// Applies what the ledger holds beyond the database; `told` hears how far it is, and of how many lines.
    pub(crate) async fn replay_ledger(&self, origin: Origin, told: &mut dyn FnMut(u64, u64)) -> Result<Applied, Error> {
        let known = self.store().read(|view| view.meta_i64("ledger_applied"))?.unwrap_or(0);
        let known = u64::try_from(known).unwrap_or(0);
        let pending = read_after(&self.store().paths().ledger, &self.keyring(), known)?;
        if origin == Origin::Start && pending.is_empty() {
            return Ok(Applied::default());
        }
        // A backup is one, whether the ledger has gone on since or not: what it has forgotten beside must not serve again.
        let ends = pending.first().zip(pending.last());
        let is_crash = origin == Origin::Start && ends.is_some_and(|(first, last)| first.number >= last.first);
        let last = ends.map_or(known, |(_, last)| last.number);
        tracing::warn!(entries = pending.len(), is_crash, "the database is older than the erasure ledger; applying it");
        if origin == Origin::Backup {
            self.store().skip_lost_numbers();
            self.store().run("replay_ledger", |_| Ok(())).await?;
        }
        let (lines, mut applied) = (pending.len() as u64, Applied::default());
        let mut copies = BTreeMap::new();
        for line in &pending {
            self.apply(line, is_crash, &mut copies, &mut applied).await?;
            applied.lines += 1;
            told(applied.lines, lines);
        }
        if !is_crash {
            applied.approvals = self.void_approvals().await?;
        }
        let number = i64::try_from(last).unwrap_or(i64::MAX);
        let entries = if is_crash { Vec::new() } else { self.restored(&pending) };
        let write = move |tx: &mut Tx<'_>| {
            entries.iter().for_each(|entry| tx.log(entry.clone()));
            tx.set_meta_i64("ledger_applied", number)
        };
        self.store().run("ledger_applied", write).await?;
        self.truncate_log().await?;
        tracing::warn!(?applied, "the erasure ledger is applied");
        Ok(applied)
    }

    async fn apply(
        &self,
        line: &Placed,
        is_crash: bool,
        copies: &mut BTreeMap<TokenDigest, Revision>,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        if planted(Fault::LedgerUnapplied) {
            return Ok(());
        }
        let entry = &line.entry;
        let effect: Effect = match &entry.event {
            LedgerEvent::Erased(reason) => self.erase_again(entry, *reason, line.number).await?,
            LedgerEvent::EpochEnded(_) => None,
            // Nobody was told: the old values are the only ones there are, and the fact never was.
            LedgerEvent::Superseded { .. } | LedgerEvent::Learned(_) if is_crash => None,
            LedgerEvent::Superseded { revision, replaced, over } => {
                let Some(values) = self.supersede_again(entry, *revision, replaced, over, copies).await? else {
                    applied.beside += 1;
                    return Ok(());
                };
                applied.values += values;
                Some(|applied| &mut applied.superseded)
            }
            LedgerEvent::Learned(learned) => self.learn_again(entry, learned).await?,
        };
        let count = effect.unwrap_or(|applied| &mut applied.beside);
        *count(applied) += 1;
        Ok(())
    }

    async fn erase_again(&self, line: &LedgerEntry, reason: EraseReason, number: u64) -> Result<Effect, Error> {
        let now = self.now();
        let counted = reason == EraseReason::Desensitized;
        if counted {
            self.begin_month(&line.tenant, line.at).await?;
        }
        let found = self.store().read(|view| match self.find(view, &line.record, now)? {
            Found::Live(loaded) => {
                let tally = counted.then(|| self.one_more(view, &loaded, line.at)).flatten();
                Ok(Some(Some((tally, loaded))))
            }
            Found::Erased(_) => Ok(None),
            Found::Unknown => Ok(Some(None)),
        })?;
        let Some(found) = found else { return Ok(None) };
        let Some((tally, loaded)) = found else {
            self.announce_lost(line, reason).await?;
            return Ok(None);
        };
        let entry = self.again(&loaded, now);
        let leaving = loaded.subject.leaving.filter(|leaving| leaving.concerns(loaded.row.id));
        // It went when the ledger says, whenever this copy hears of it.
        let (at, in_backups_by) = (line.at, self.in_backups_by(line.at));
        let (story, hearers) = (leaving.map(|leaving| leaving.story), self.hearers(&loaded.row.tenant)?);
        let told = Told { at, in_backups_by, entry, tally, story, hearers };
        let record = loaded.row;
        let write = move |tx: &mut Tx<'_>| destroy_noted(tx, &record, reason, number, told.clone());
        self.store().run("replay_ledger", write).await?;
        Ok(Some(|applied| &mut applied.erased))
    }

    /// A record came and went after this copy was made. Whether its end was announced went with the outbox, so it is again.
    async fn announce_lost(&self, line: &LedgerEntry, reason: EraseReason) -> Result<(), Error> {
        let (hearers, tenant) = (self.hearers(&line.tenant)?, line.tenant.clone());
        if hearers.are_none() {
            return Ok(());
        }
        let said = Announcement { tenant, record: line.record, class: None, reason, at: line.at, news: News::Erased };
        let write = move |tx: &mut Tx<'_>| hearers.hear_of(tx, &said);
        Ok(self.store().run("replay_ledger", write).await?)
    }

    /// The record goes on without what was shredded since; answers how many values went. `copies`: the revisions that the copy
    /// came with, so that a line which an earlier one went beyond is still heard.
    async fn supersede_again(
        &self,
        line: &LedgerEntry,
        revision: Revision,
        replaced: &[Field],
        over: &[Piece],
        copies: &mut BTreeMap<TokenDigest, Revision>,
    ) -> Result<Option<u64>, Error> {
        let now = self.now();
        let prepared = self.store().read(|view| {
            let Found::Live(loaded) = self.find(view, &line.record, now)? else { return Ok(None) };
            if revision < *copies.entry(line.record).or_insert(loaded.row.revision) {
                return Ok(None);
            }
            let held = loaded.row.fields;
            let fields = replaced.iter().fold(held, |fields, field| fields.without(*field));
            let over: Vec<Piece> = over.iter().copied().filter(|piece| fields.holds_piece(*piece)).collect();
            let went = replaced.iter().filter(|field| held.holds(**field)).count() + over.len();
            let revision = loaded.row.revision.max(revision).next();
            let next = self.next_revision(view, &loaded, Next { revision, fields, given: &[], over })?;
            Ok(Some((loaded, next, went as u64)))
        })?;
        let Some((loaded, next, went)) = prepared else { return Ok(None) };
        let (entry, old) = (self.again(&loaded, now), loaded.row);
        let write = move |tx: &mut Tx<'_>| {
            replace_noted(tx, &old, &next)?;
            tx.log(entry.clone());
            Ok(())
        };
        self.store().run("replay_ledger", write).await?;
        Ok(Some(went))
    }

    async fn learn_again(&self, line: &LedgerEntry, learned: &Learned) -> Result<Effect, Error> {
        let now = self.now();
        let live = |digest: &TokenDigest| {
            self.store().read(|view| match self.find(view, digest, now)? {
                Found::Live(loaded) => Ok(Some(loaded)),
                Found::Erased(_) | Found::Unknown => Ok(None),
            })
        };
        let at = line.at;
        match learned {
            Learned::Happened(event) => {
                let event = *event;
                let Some(loaded) = live(&line.record)? else { return Ok(None) };
                let record = match self.with_event(&loaded, event, at) {
                    Ok((record, _)) => record,
                    Err(Error::Invalid(_)) => return Ok(None),
                    Err(error) => return Err(error),
                };
                let entry = self.again(&loaded, now);
                let write = move |tx: &mut Tx<'_>| {
                    tx.update_record(&record)?;
                    end_grants(tx, record.id, event.kind, event.ordinal, at)?;
                    tx.log(entry.clone());
                    Ok(Some(()))
                };
                self.learn(write, |applied| &mut applied.events).await
            }
            Learned::GrantEnded(id) => {
                let id = *id;
                let Some(loaded) = live(&line.record)? else { return Ok(None) };
                let (entry, record) = (self.again(&loaded, now), loaded.row.id);
                let write = move |tx: &mut Tx<'_>| {
                    let open = tx.grant(id)?.filter(|grant| grant.record == record && grant.ended_at.is_none());
                    let Some(open) = open else { return Ok(None) };
                    end_grant(tx, open.id, at)?;
                    tx.log(entry.clone());
                    Ok(Some(()))
                };
                self.learn(write, |applied| &mut applied.grants_ended).await
            }
            Learned::HoldPlaced { subject, record, id, kind, reference, placed_by, placed_at } => {
                let on = match record {
                    Some(digest) => {
                        let Some(loaded) = live(digest)? else { return Ok(None) };
                        Some(loaded.row.id)
                    }
                    None => None,
                };
                let hold = HoldRow {
                    id: *id,
                    tenant: line.tenant.clone(),
                    subject: *subject,
                    record: on,
                    kind: *kind,
                    reference: reference.clone(),
                    placed_by: placed_by.clone(),
                    placed_at: *placed_at,
                    lifted_at: None,
                };
                let entry = self.again_of(&line.tenant, now);
                let write = move |tx: &mut Tx<'_>| {
                    if tx.hold(hold.id)?.is_some() || tx.subject(hold.subject)?.is_none() {
                        return Ok(None);
                    }
                    tx.insert_hold(&hold)?;
                    count_holds(tx, hold.subject, 1)?;
                    tx.log(entry.clone());
                    Ok(Some(()))
                };
                self.learn(write, |applied| &mut applied.holds_placed).await
            }
            Learned::HoldLifted { id, lifted_at } => {
                let (id, lifted_at, entry) = (*id, *lifted_at, self.again_of(&line.tenant, now));
                let write = move |tx: &mut Tx<'_>| {
                    let Some(hold) = tx.hold(id)?.filter(|hold| hold.lifted_at.is_none()) else { return Ok(None) };
                    count_holds(tx, hold.subject, -1)?;
                    tx.update_hold(&HoldRow { reference: Vec::new(), lifted_at: Some(lifted_at), ..hold })?;
                    tx.log(entry.clone());
                    Ok(Some(()))
                };
                self.learn(write, |applied| &mut applied.holds_lifted).await
            }
            Learned::Leaving(subject, leaving) => {
                let (subject, leaving, entry) = (*subject, *leaving, self.again_of(&line.tenant, now));
                let write = move |tx: &mut Tx<'_>| {
                    let Some(row) = tx.subject(subject)?.filter(|row| row.leaving != Some(leaving)) else {
                        return Ok(None);
                    };
                    // Its records are looked at by the sweeper.
                    tx.update_subject(&SubjectRow { leaving: Some(leaving), unseen: Some(BEFORE_ALL), ..row })?;
                    tx.log(entry.clone());
                    Ok(Some(()))
                };
                self.learn(write, |applied| &mut applied.leaving).await
            }
            Learned::Caller(enrolment) => {
                let (wanted, entry) = (enrolment.as_ref().clone(), self.again_of(&line.tenant, now));
                let write = move |tx: &mut Tx<'_>| {
                    // The last line counts, whatever its version says: one that a crash lost has its successor's.
                    let known = tx.enrolment(&wanted.id)?;
                    let version = known.as_ref().map_or(wanted.version, |known| known.version + 1);
                    let changed = Enrolment { version, ..wanted.clone() };
                    match known {
                        Some(known) if Enrolment { version, ..known.clone() } == changed => return Ok(None),
                        Some(_) => tx.update_enrolment(&changed)?,
                        None => tx.insert_enrolment(&changed)?,
                    }
                    tx.log(entry.clone());
                    Ok(Some(changed))
                };
                let Some(changed) = self.store().run("replay_ledger", write).await? else { return Ok(None) };
                self.inner.roster.apply(changed);
                Ok(Some(|applied| &mut applied.callers))
            }
        }
    }

    /// Writes what was learned, if there is something that it is about.
    async fn learn<F>(&self, write: F, counted: fn(&mut Applied) -> &mut u64) -> Result<Effect, Error>
    where
        F: Fn(&mut Tx<'_>) -> Result<Option<()>, StoreError> + Send + 'static,
    {
        Ok(self.store().run("replay_ledger", write).await?.map(|()| counted))
    }

    /// An approval serves once, and this copy does not know which have: whoever still wants something asks again.
    async fn void_approvals(&self) -> Result<u64, Error> {
        let (after, mut void) = (Timestamp(i64::MAX), 0);
        for tenant in self.inner.parts.policies.keys() {
            loop {
                let tenant = tenant.clone();
                let write = move |tx: &mut Tx<'_>| tx.expire_approvals(&tenant, after, CHUNK);
                let gone = self.store().run("replay_ledger", write).await?;
                void += gone as u64;
                if gone < CHUNK {
                    break;
                }
            }
        }
        Ok(void)
    }

    /// What the log says of one line's effect on a record.
    fn again(&self, loaded: &Loaded, now: Timestamp) -> Entry {
        let RecordRow { tenant, class, .. } = &loaded.row;
        let draft = Draft::by_vault(tenant, self.new_request(), Action::ReplayLedger, now);
        draft.about(*class, Some(loaded.tag)).done()
    }

    fn again_of(&self, tenant: &TenantId, now: Timestamp) -> Entry {
        Draft::by_vault(tenant, self.new_request(), Action::ReplayLedger, now).done()
    }

    /// What the log says to each tenant of the whole: from how many lines that concern it this copy was brought up to date.
    fn restored(&self, pending: &[Placed]) -> Vec<Entry> {
        let now = self.now();
        let of = |tenant: &TenantId| pending.iter().filter(|line| line.entry.tenant == *tenant).count();
        let entry = |tenant: &TenantId| {
            let draft = Draft::by_vault(tenant, self.new_request(), Action::Restore, now);
            draft.count(u32::try_from(of(tenant)).unwrap_or(u32::MAX)).done()
        };
        self.inner.parts.policies.keys().map(entry).collect()
    }
}
