//! The vault's part in its own sealing: the entries, and the proof that it is gone. INVARIANT: what was tried while nothing could
//! be logged is logged before the first call after it is served.

use std::sync::Weak;

use super::call::{Call, Draft};
use super::{Error, Inner, Vault};
use crate::audit::entry::{Action, Entry, RefusalCode};
use crate::domain::time::Timestamp;
use crate::store::Tx;

/// Something that a sealed vault was asked for.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub call: Call,
    pub at: Timestamp,
    pub action: Action,
    /// `None`: it was done.
    pub refused: Option<RefusalCode>,
}

/// Tells whether a vault still lives somewhere, without keeping it alive.
pub struct Pulse(Weak<Inner>);

impl Pulse {
    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Attempt {
    fn entry(&self) -> Entry {
        let draft = Draft::of(&self.call, self.action, self.at);
        match self.refused {
            None => draft.done(),
            Some(code) => draft.refused(code),
        }
    }
}

impl Vault {
    /// Logs that a call concerning the seal was done: before it is sealed, and after it was found open.
    pub async fn done(&self, call: &Call, action: Action) -> Result<(), Error> {
        self.log(Draft::of(call, action, self.now()).done()).await
    }

    /// Logs what was tried before this vault was open, in order.
    pub async fn log_attempts(&self, attempts: &[Attempt]) -> Result<(), Error> {
        let entries: Vec<Entry> = attempts.iter().map(Attempt::entry).collect();
        let write = move |tx: &mut Tx<'_>| {
            entries.iter().cloned().for_each(|entry| tx.log(entry));
            Ok(())
        };
        Ok(self.store().run("log_attempts", write).await?)
    }

    pub fn pulse(&self) -> Pulse {
        Pulse(std::sync::Arc::downgrade(&self.inner))
    }
}
