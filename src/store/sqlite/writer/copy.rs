//! Copies the database beside the commits. INVARIANT: no commit waits for more than a few pages of a copy, and a copy is of one
//! instant, its end.

use std::sync::mpsc::Receiver;

use rusqlite::Connection;
use rusqlite::backup::{Backup, Progress, StepResult};

use super::super::sql;
use super::queue::{Copy, Job};
use super::{BEGIN_AGAIN, State};
use crate::store::StoreError;

/// Pages of 4 KiB that are copied between two commits: well under a millisecond.
const COPIED_AT_ONCE: i32 = 64;

impl State<'_> {
    /// Copies the database by SQLite's online backup, a few pages and then a commit's worth of what is queued, in turns. What this
    /// connection changes on the way is changed in the copy as well, so it never begins anew, however much is written.
    pub(super) fn copy(&mut self, copy: Copy, queue: &Receiver<Job>) {
        let Copy { to, mut told, answer } = copy;
        let source = self.connection;
        let copied = (|| {
            let failed = |source| sql("copy", source);
            let mut into = Connection::open(&to).map_err(failed)?;
            // Until it is whole the copy is nobody's: neither journal nor flush are of use.
            into.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").map_err(failed)?;
            let pages = Backup::new(source, &mut into).map_err(failed)?;
            loop {
                let step = pages.step(COPIED_AT_ONCE).map_err(failed)?;
                let Progress { remaining, pagecount } = pages.progress();
                let goes_on = told(u64::try_from(remaining).unwrap_or(0), u64::try_from(pagecount).unwrap_or(0));
                match step {
                    _ if !goes_on => return Err(StoreError::Refused("the copy was given up".to_owned())),
                    StepResult::Done => return Ok(()),
                    StepResult::More => {}
                    _busy_or_locked => std::thread::sleep(BEGIN_AGAIN),
                }
                if let Some(another) = queue.try_recv().ok().and_then(|job| self.turn(job, queue)) {
                    let _ = another.answer.send(Err(StoreError::Refused("a copy is being made already".to_owned())));
                }
            }
        })();
        let _ = answer.send(copied);
    }
}
