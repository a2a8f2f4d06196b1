//! Questions an officer asks: who saw this subject, what this caller was shown, what was refused and why, which grants were
//! never used, what became of one request. INVARIANT: a question is in the log before anything of its answer leaves; an answer
//! speaks of the asking tenant alone, and of the log as it was when it was asked; its memory does not grow with the log.
//!
//! ```text
//! question → where the log ends now → entry of the question, durable → Receipt → Answer, a stream of parts
//! on a thread of its own:
//!   reading     pages of packed entries, one short snapshot each; pages known to lie outside of the period are skipped
//!   Glance      an entry where it lies; entries of other tenants and times go no further
//!   who_saw     the subject's key → its tag of the entry's day, equal or not
//!   seen_by     the caller's entries, summed up by tag (exposure) → every living subject's tags of those days → by subject
//!               → a page of subjects: tokens of their records, opened → Held → entry → Receipt → out
//!   refusals    by code, action and caller        explain     the entries of one request
//! grants        unused_grants: the grants themselves, no log
//! ```
//! Answers reach back as far as the log is kept. A tag leads to its subject only while that lives: of the others it is known
//! that somebody was seen, not who.

mod explain;
mod exposure;
mod reading;
mod refusals;
mod seen_by;
mod unused_grants;
mod who_saw;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::call::Draft;
use super::loaded::Receipt;
use super::{Error, Vault};
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

pub use explain::Explain;
pub use exposure::{FieldShown, Shown};
pub use refusals::{Refusals, Refused};
pub use seen_by::{Seen, SeenBy, SubjectSeen, Summary};
pub use unused_grants::{UnusedGrant, UnusedGrants, Why as WhyUnused};
pub use who_saw::WhoSaw;

use reading::Read;

/// From `since` on and before `until`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Period {
    pub(crate) const ALWAYS: Period = Period { since: Timestamp(i64::MIN), until: Timestamp(i64::MAX) };

    fn holds(&self, at: Timestamp) -> bool {
        self.since <= at && at < self.until
    }
}

/// An answer as it comes. Who drops it ends the work on it.
pub type Answer<T> = mpsc::Receiver<Result<Part<T>, Error>>;

pub enum Part<T> {
    /// So much is read so far, in thousandths.
    Read(u16),
    Rows(Vec<T>),
}

/// The most rows of one part.
const ROWS: usize = 256;
/// Parts that wait for their reader.
const WAITING_PARTS: usize = 2;
/// How long a reader may leave them waiting before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Questions that are answered at once: each takes a core. Others wait so long for their turn.
const QUESTIONS: usize = 2;
const TURN: Duration = Duration::from_secs(10);

/// What answering needs to share.
pub(crate) struct Desk {
    turns: Arc<Semaphore>,
    read: Read,
}

impl Default for Desk {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(QUESTIONS)), read: Read::default() }
    }
}

/// A question that is being answered.
struct Question<T> {
    vault: Vault,
    tenant: TenantId,
    /// Where the log ended when it was asked.
    end: u64,
    reply: Reply<T>,
}

impl Vault {
    /// Logs a question; then `work` answers it on a thread of its own.
    async fn ask<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        draft: Draft,
        work: impl FnOnce(&Question<T>) -> Result<(), Error> + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        let turn = timeout(TURN, Arc::clone(&self.inner.desk.turns).acquire_owned()).await;
        let busy = || StoreError::Refused("other questions are being answered".to_owned());
        let turn = turn.ok().and_then(Result::ok).ok_or_else(|| Error::Unavailable(busy()))?;
        let end = self.store().read(|view| view.audit_frontier())?.size();
        let entry = draft.clone().done();
        let logged = self.log_read("question", move |tx| {
            tx.log(entry.clone());
            Ok(true)
        });
        let receipt = logged.await?.ok_or(Error::Unavailable(StoreError::Raced))?;
        let (to, answer) = mpsc::channel(WAITING_PARTS);
        let reply = Reply { to: to.clone(), read: Cell::new(0), _logged: receipt };
        let question = Question { vault: self.clone(), tenant: tenant.clone(), end, reply };
        let vault = self.clone();
        tokio::spawn(async move {
            let answering = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work(&question)
            });
            let done = answering.await.unwrap_or(Err(Error::Unavailable(StoreError::Closed)));
            if let Err(error) = vault.watch(&draft, done).await {
                // A reader that is gone has no use for it.
                let _ = to.send(Err(error)).await;
            }
        });
        Ok(answer)
    }
}

/// The way out of an answer; there is none without the question's receipt.
struct Reply<T> {
    to: mpsc::Sender<Result<Part<T>, Error>>,
    read: Cell<u16>,
    _logged: Receipt,
}

impl<T> Reply<T> {
    /// Tells how far the reading is. Errors: nobody waits for the answer any more.
    fn progress(&self, thousandths: u16) -> Result<(), Error> {
        if self.read.replace(thousandths) != thousandths { self.is_at_work() } else { self.is_wanted() }
    }

    /// Tells that the work goes on, without having got further in the log.
    fn is_at_work(&self) -> Result<(), Error> {
        // Who is behind with reading rows need not know how far the rest is.
        let _ = self.to.try_send(Ok(Part::Read(self.read.get())));
        self.is_wanted()
    }

    fn is_wanted(&self) -> Result<(), Error> {
        if self.to.is_closed() { Err(gone()) } else { Ok(()) }
    }

    fn rows(&self, rows: Vec<T>) -> Result<(), Error> {
        const PAUSE: Duration = Duration::from_millis(10);
        let mut part = Ok(Part::Rows(rows));
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            match self.to.try_send(part) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(_)) => break,
                Err(mpsc::error::TrySendError::Full(back)) => part = back,
            }
            std::thread::sleep(PAUSE);
        }
        Err(gone())
    }

    /// Sends what has gathered once it fills a part.
    fn full_parts(&self, rows: &mut Vec<T>) -> Result<(), Error> {
        while rows.len() >= ROWS {
            let rest = rows.split_off(ROWS);
            self.rows(std::mem::replace(rows, rest))?;
        }
        Ok(())
    }

    /// Sends all of them, a part at a time.
    fn all(&self, mut rows: Vec<T>) -> Result<(), Error> {
        self.full_parts(&mut rows)?;
        if rows.is_empty() { Ok(()) } else { self.rows(rows) }
    }
}

fn gone() -> Error {
    Error::Unavailable(StoreError::Refused("nobody reads the answer any more".to_owned()))
}
