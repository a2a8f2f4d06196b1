//! The way to the writer's thread: jobs, in the order in which they came, each with the place its answer goes to. INVARIANT: whoever
//! is taken in is answered, or learns that the store is closed; what is queued when the store is dropped is still done.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::State;
use crate::crypto::keyring::Keyring;
use crate::domain::time::Clock;
use crate::store::ids::Ids;
use crate::store::tx::Tx;
use crate::store::{Flags, StoreError, StorePaths};

/// How many may wait; past it the store answers at once that it cannot.
const QUEUE: usize = 8_192;

pub(super) enum Job {
    Work(Box<dyn Work>),
    Copy(Copy),
    /// From here on by this keyring.
    Adopt(Arc<Keyring>, Box<dyn Work>),
    TruncateLog(oneshot::Sender<Result<bool, StoreError>>),
}

/// A copy of the database to be made.
pub(in super::super) struct Copy {
    pub to: PathBuf,
    /// Hears how many pages of how many are left; answers whether to go on.
    pub told: Box<dyn FnMut(u64, u64) -> bool + Send>,
    pub answer: oneshot::Sender<Result<(), StoreError>>,
}

/// A closure with the place its answer goes to.
pub(super) trait Work: Send {
    fn name(&self) -> &'static str;
    /// Runs the closure and keeps its answer; its effects should stand unless it failed.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    /// Whether it was run, and what it did is to stand.
    fn stands(&self) -> bool;
    /// Sends the answer kept, or the reason why nothing of it stands.
    fn answer(&mut self, failed: Option<&StoreError>);
}

struct Pending<T, F> {
    name: &'static str,
    work: F,
    answer: Option<Result<T, StoreError>>,
    to: Option<oneshot::Sender<Result<T, StoreError>>>,
}

impl<T, F> Work for Pending<T, F>
where
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let answer = (self.work)(tx);
        let stands = answer.as_ref().map(drop).map_err(Clone::clone);
        self.answer = Some(answer);
        stands
    }

    fn stands(&self) -> bool {
        matches!(self.answer, Some(Ok(_)))
    }

    fn answer(&mut self, failed: Option<&StoreError>) {
        let answer = match failed {
            Some(error) => Some(Err(error.clone())),
            None => self.answer.take(),
        };
        if let (Some(to), Some(answer)) = (self.to.take(), answer) {
            // Who asked may be gone; what was done stands all the same.
            let _ = to.send(answer);
        }
    }
}

pub(in super::super) struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    poison: Arc<OnceLock<String>>,
    ids: Arc<Ids>,
}

impl Writer {
    pub(in super::super) fn start(
        connection: Connection,
        paths: &StorePaths,
        reserve: u64,
        shared: Arc<ArcSwap<Keyring>>,
        clock: Arc<dyn Clock>,
        flags: Arc<Flags>,
    ) -> Result<Self, StoreError> {
        let poison = Arc::new(OnceLock::new());
        let (jobs, queue) = sync_channel(QUEUE);
        let (paths, poisoned) = (paths.clone(), Arc::clone(&poison));
        // The connection stays with the thread, which borrows it while a copy is made.
        let (ready, opened) = sync_channel(1);
        let serve = move || match State::open(&connection, &paths, reserve, shared, clock, poisoned, flags) {
            Ok(state) => {
                let _ = ready.send(Ok(Arc::clone(&state.ids)));
                state.serve(&queue);
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(serve);
        let thread = thread.map_err(|source| StoreError::io("starting the writer", source))?;
        match opened.recv().unwrap_or(Err(StoreError::Closed)) {
            Ok(ids) => Ok(Self { jobs: Some(jobs), thread: Some(thread), poison, ids }),
            Err(error) => {
                let _ = thread.join();
                Err(error)
            }
        }
    }

    pub(in super::super) fn submit<T, F>(
        &self,
        name: &'static str,
        work: F,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (to, answer) = oneshot::channel();
        self.send(Job::Work(Box::new(Pending { name, work, answer: None, to: Some(to) })))?;
        Ok(answer)
    }

    pub(in super::super) fn adopt<F>(
        &self,
        keyring: Arc<Keyring>,
        work: F,
    ) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError>
    where
        F: Fn(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
    {
        let (to, answer) = oneshot::channel();
        let work = Pending { name: "adopt_keyring", work, answer: None, to: Some(to) };
        self.send(Job::Adopt(keyring, Box::new(work)))?;
        Ok(answer)
    }

    /// Copies the database to a file that is there already, between the commits; the copy is as of its end.
    pub(in super::super) fn copy(&self, copy: Copy) -> Result<(), StoreError> {
        self.send(Job::Copy(copy))
    }

    pub(in super::super) fn truncate_log(&self) -> Result<oneshot::Receiver<Result<bool, StoreError>>, StoreError> {
        let (to, answer) = oneshot::channel();
        self.send(Job::TruncateLog(to))?;
        Ok(answer)
    }

    pub(in super::super) fn allocate(&self) -> Result<i64, StoreError> {
        self.ids.allocate()
    }

    pub(in super::super) fn skip_lost(&self) {
        self.ids.skip_lost();
    }

    pub(in super::super) fn poisoned(&self) -> Option<String> {
        self.poison.get().cloned()
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        if let Some(why) = self.poison.get() {
            return Err(StoreError::Poisoned(why.clone()));
        }
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(StoreError::Refused("the write queue is full".to_owned())),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(StoreError::Closed),
        }
    }
}

impl Drop for Writer {
    /// Lets what is queued finish.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A writer that panics leaves nobody to answer: the store is poisoned, so that the server notices and ends.
pub(super) struct Guard(pub(super) Arc<OnceLock<String>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.set("the writer panicked".to_owned());
        }
    }
}
