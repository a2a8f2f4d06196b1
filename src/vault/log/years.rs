//! The log's years: a tree is closed when its year is over, and its entries go when they have served their time. INVARIANT: both
//! go by the mark, so that a wall clock set wrong closes and deletes nothing; of a tree that goes its last checkpoint stays, and
//! the log tells of it before anything is deleted.

use super::super::call::Draft;
use super::{Error, HeadOf, Vault};
use crate::audit::entry::{Action, Entry};
use crate::audit::log::{Step, due};
use crate::domain::time::Timestamp;
use crate::store::{Cut, Tx};

/// Rows of a log deleted in one transaction.
const CHUNK: usize = 50;

/// What a step for the log has done.
#[derive(Default)]
pub struct KeptYears {
    /// There is more to do at once.
    pub more: bool,
    /// A year was closed, with this head.
    pub closed: Option<HeadOf>,
}

impl Vault {
    /// One step for the log's years.
    pub async fn keep_log(&self) -> Result<KeptYears, Error> {
        let mark = self.inner.mark.at();
        let (tip, notes, kept_from) =
            self.store().read(|view| Ok((view.audit_tip()?, view.last_notes()?, view.audit_kept_from()?)))?;
        let (mut kept, mut closed) = (KeptYears::default(), Vec::new());
        for kept in notes {
            let last = self.read_head(kept)?.checkpoint;
            closed.push((last.first + last.size, last.at));
        }
        for step in due(mark, &tip, &closed, kept_from, self.inner.parts.log.keep_years) {
            match step {
                Step::Cut { year } => kept.closed = self.cut(year, mark).await?,
                Step::Expire { kept_from } => self.expire_log(kept_from, mark).await?,
            }
        }
        if self.store().read(|view| Ok(view.audit_kept_from()? > 0))? {
            kept.more = self.store().run("delete_unkept", |tx| tx.delete_unkept(CHUNK)).await?;
        }
        Ok(kept)
    }

    /// Answers the last head of the tree that was closed.
    async fn cut(&self, year: i16, at: Timestamp) -> Result<Option<HeadOf>, Error> {
        let name = self.inner.parts.log.name.clone();
        let (cut, entries) = (Cut { name, year, at }, self.for_every_tenant(Action::CutLog, at));
        let write = move |tx: &mut Tx<'_>| {
            entries.iter().for_each(|entry| tx.log(entry.clone()));
            tx.cut_log(cut.clone());
            Ok(())
        };
        self.store().run("cut_log", write).await?;
        tracing::info!(year, "the log's year is over: its tree is closed, the next one begins");
        let last = self.store().read(|view| Ok(view.last_notes()?.pop()))?;
        last.map(|last| self.read_head(last)).transpose()
    }

    async fn expire_log(&self, kept_from: u64, at: Timestamp) -> Result<(), Error> {
        let entries = self.for_every_tenant(Action::ExpireLog, at);
        let write = move |tx: &mut Tx<'_>| {
            entries.iter().for_each(|entry| tx.log(entry.clone()));
            tx.set_audit_kept_from(kept_from)
        };
        self.store().run("expire_log", write).await?;
        tracing::info!(kept_from, "a log has served its time: its last checkpoint is what remains");
        Ok(())
    }

    /// The same entry in every tenant's part of the log: it is about all of it.
    fn for_every_tenant(&self, action: Action, at: Timestamp) -> Vec<Entry> {
        let tenants = self.inner.parts.policies.keys();
        tenants.map(|tenant| Draft::by_vault(tenant, self.new_request(), action, at).done()).collect()
    }
}
