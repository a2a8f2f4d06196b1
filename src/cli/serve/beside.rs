//! What goes on beside the calls of an open vault: what is due is destroyed, the keys are kept to their schedule. INVARIANT: a
//! loop ends when it is told to and holds up no call; what it could not do it does at the next interval.

use std::io;
use std::time::Duration;

use super::{failed, runtime, told};
use crate::cli::Failure;
use crate::rpc::listener::Stop;
use crate::vault::{Swept, Vault};

/// One step of the sweeper before anyone is served; answers when the next one is wanted.
pub(super) fn first_sweep(vault: &Vault, interval: Duration) -> Result<Duration, Failure> {
    let runtime = runtime().map_err(|error| failed("cannot start a runtime", &error))?;
    let more = runtime.block_on(vault.sweep()).unwrap_or_else(|error| {
        tracing::error!(reason = told(&error), "the sweeper could not destroy what is due");
        Swept::default()
    });
    Ok(if more.more { Duration::ZERO } else { interval })
}

/// Destroys what is due, chunk by chunk, after `first` and at every interval. An error waits for the next interval: the store may
/// recover, and what is due stays unreadable meanwhile.
pub(super) fn sweep(vault: &Vault, first: Duration, interval: Duration, stop: &Stop) -> io::Result<()> {
    runtime()?.block_on(async {
        let stopped = stop.wait();
        tokio::pin!(stopped);
        let mut pause = first;
        loop {
            // Between two steps, never within one.
            tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            pause = interval;
            match vault.sweep().await {
                Ok(swept) => {
                    if swept.destroyed > 0 {
                        tracing::info!(destroyed = swept.destroyed, "records were destroyed: their retention was over");
                    }
                    if swept.staged > 0 {
                        tracing::info!(staged = swept.staged, "records go on without what was over of them");
                    }
                    if swept.more {
                        pause = Duration::ZERO;
                    }
                }
                Err(error) => tracing::error!(reason = told(&error), "the sweeper could not destroy what is due"),
            }
            if let Some(why) = vault.store().poisoned() {
                // Whoever supervises us starts us again, and the start recovers.
                return Err(io::Error::other(format!("the store refuses until a restart: {why}")));
            }
        }
    })
}

/// Keeps the keys: at the start, at every interval, and when somebody orders it. A stop may come within a step: whatever is begun
/// is found and finished by the next start.
pub(super) fn keep_keys(vault: &Vault, interval: Duration, stop: &Stop) -> io::Result<()> {
    runtime()?.block_on(async {
        let stopped = stop.wait();
        tokio::pin!(stopped);
        let mut pause = Duration::ZERO;
        loop {
            let step = async {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = vault.keys_wanted() => {}
                }
                vault.keep_keys().await
            };
            let kept = tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                kept = step => kept,
            };
            pause = match kept {
                Ok(kept) if kept.more => Duration::ZERO,
                Ok(_) => interval,
                Err(error) => {
                    tracing::error!(reason = told(&error), "the keys could not be kept as planned");
                    interval
                }
            };
        }
    })
}
