//! Tells webhooks what is in the outbox, beside the server. INVARIANT: nothing here holds up a call or another webhook: each has a
//! lane of its own, with one message on its way at a time; a message leaves the outbox once it was taken, or lies in the dead-letter
//! file, and is tried again until then.
//!
//! ```text
//! outbox → message of at most 100 → POST ─ 2xx ──────────────────────────→ out of the outbox
//!             ↑                       └─ else: pause, twice as long each time ─┐
//!             └──────────────────── old, and tried often enough? ←─────────────┘ yes: dead-letter file, out of the outbox
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{runtime, told};
use crate::cli::Failure;
use crate::cli::webhooks::dead_letters::DeadLetters;
use crate::cli::webhooks::post::Receiver;
use crate::config::WebhookConfig;
use crate::crypto::entropy::{OsEntropy, array};
use crate::domain::fault::{Fault, planted};
use crate::domain::id::HookName;
use crate::domain::time::{Clock as _, SystemClock};
use crate::policy::webhook::{LEAST_TRIES, pause};
use crate::rpc::listener::Stop;
use crate::vault::{Error, Outgoing, Vault};

/// How often an empty outbox is looked into.
const LOOK: Duration = Duration::from_millis(500);
/// Between two pages of what is due soon, so that calls come in between.
const BREATH: Duration = Duration::from_millis(2);
/// The operator is told of a webhook that has not taken a message so many times in a row.
const TELL_AFTER: u32 = 3;

/// Refuses a webhook that could not be told anything, before anyone is served.
pub(super) fn check(hooks: &[WebhookConfig]) -> Result<(), Failure> {
    for hook in hooks {
        let name = &hook.subscription.name;
        Receiver::new(hook).map_err(|why| Failure::local(format!("cannot use webhook {name}: {why}")))?;
        DeadLetters::new(&hook.dead_letters).open().map_err(|error| {
            let path = hook.dead_letters.display();
            Failure::local(format!("cannot use webhook {name}: its dead-letter file {path} cannot be written: {error}"))
        })?;
    }
    Ok(())
}

/// The loop, until told to stop.
pub(super) fn announce(vault: &Vault, hooks: &[WebhookConfig], stop: &Stop) -> io::Result<()> {
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let stopped = stop.wait();
        tokio::pin!(stopped);
        let (mut lanes, board) = (JoinSet::new(), Board::default());
        for hook in hooks {
            lanes.spawn(Lane::new(vault, hook, &board).keep());
        }
        lanes.spawn(tell_due_soon(vault.clone()));
        tokio::select! {
            biased;
            () = &mut stopped => Ok(()),
            _ = lanes.join_next() => Err(io::Error::other("telling the webhooks has ended by itself")),
        }
    });
    // A name that is being looked up is not waited for.
    runtime.shutdown_background();
    ended
}

/// Puts what is due soon into the outbox.
async fn tell_due_soon(vault: Vault) {
    loop {
        let pause = match vault.tell_due_soon().await {
            Ok(true) => BREATH,
            Ok(false) => LOOK,
            Err(error) => {
                tracing::error!(reason = told(&error), "what is due soon could not be announced");
                Duration::from_secs(10)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// One webhook's way from the outbox.
struct Lane {
    vault: Vault,
    hook: WebhookConfig,
    board: Board,
    dead: DeadLetters,
    /// Made when it is needed, and again while it cannot be.
    receiver: Option<Receiver>,
    /// In vain, since a message was last taken.
    tries: u32,
}

impl Lane {
    fn new(vault: &Vault, hook: &WebhookConfig, board: &Board) -> Self {
        let dead = DeadLetters::new(&hook.dead_letters);
        Self { vault: vault.clone(), hook: hook.clone(), board: board.clone(), dead, receiver: None, tries: 0 }
    }

    async fn keep(mut self) {
        loop {
            match self.vault.outgoing(self.name()).await {
                Ok(Some(outgoing)) => self.deliver(&outgoing).await,
                Ok(None) => {
                    self.tell(None);
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// Until it has left the outbox, one way or the other.
    async fn deliver(&mut self, outgoing: &Outgoing) {
        loop {
            let Err(why) = self.try_once(outgoing).await else {
                self.tries = 0;
                metrics::counter!("strongroom_announcements_total").increment(outgoing.count() as u64);
                match self.vault.taken(outgoing).await {
                    Ok(()) => return,
                    // It is still in the outbox, so it is sent once more.
                    Err(error) => self.failed(&error).await,
                }
                continue;
            };
            self.tries += 1;
            metrics::counter!("strongroom_webhook_failures_total").increment(1);
            let (hook, tries) = (self.name(), self.tries);
            tracing::warn!(%hook, tries, why, "a webhook has not taken a message; it will be tried again");
            self.tell(Some(why));
            let old = i64::try_from(self.hook.give_up_after.as_micros()).unwrap_or(i64::MAX);
            if self.tries >= LEAST_TRIES && self.vault.has_waited(outgoing) > old && self.give_up(outgoing).await {
                return;
            }
            let roll = u16::from_be_bytes(array(&OsEntropy));
            tokio::time::sleep(pause(self.tries, self.hook.first_retry, roll)).await;
        }
    }

    async fn try_once(&mut self, outgoing: &Outgoing) -> Result<(), String> {
        if planted(Fault::AnnouncementTakenEarly) {
            self.vault.taken(outgoing).await.map_err(|error| told(&error))?;
        }
        if self.receiver.is_none() {
            self.receiver = Some(Receiver::new(&self.hook)?);
        }
        let Some(receiver) = &self.receiver else { return Ok(()) };
        receiver.post(&outgoing.message, SystemClock::new().now()).await
    }

    /// Files it among the dead letters; `false`: it stays in the outbox.
    async fn give_up(&self, outgoing: &Outgoing) -> bool {
        let hook = self.name();
        if let Err(error) = self.dead.append(hook, &outgoing.message, SystemClock::new().now()) {
            tracing::error!(%hook, %error, "the dead-letter file has not taken a message; it stays in the outbox");
            return false;
        }
        match self.vault.given_up(outgoing).await {
            Ok(()) => {
                let announcements = outgoing.count();
                metrics::counter!("strongroom_dead_letters_total").increment(announcements as u64);
                tracing::error!(%hook, announcements, "a message was given up and lies in the dead-letter file");
                true
            }
            Err(error) => {
                tracing::error!(%hook, reason = told(&error), "a dead letter is still in the outbox too");
                false
            }
        }
    }

    async fn failed(&self, error: &Error) {
        tracing::error!(hook = %self.name(), reason = told(error), "the outbox could not be looked after");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn name(&self) -> &HookName {
        &self.hook.subscription.name
    }

    /// What the operator is to know of this webhook.
    fn tell(&self, why: Option<String>) {
        let name = self.name();
        let silent = why.filter(|_| self.tries >= TELL_AFTER);
        let silent = silent.map(|why| format!("webhook {name} takes no messages, they wait in the outbox: {why}"));
        let dead = (!self.dead.is_empty()).then(|| {
            let path = self.hook.dead_letters.display();
            format!("messages that were never taken lie in {path}: see `strongroom webhooks redeliver`")
        });
        self.board.pin(name, silent.into_iter().chain(dead).collect(), &self.vault);
    }
}

/// What there is to say of each webhook; the operator sees all of it.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<BTreeMap<HookName, Vec<String>>>>);

impl Board {
    fn pin(&self, name: &HookName, words: Vec<String>, vault: &Vault) {
        let Ok(mut pinned) = self.0.lock() else { return };
        if pinned.get(name).is_some_and(|known| *known == words) {
            return;
        }
        pinned.insert(name.clone(), words);
        // Several webhooks may share a dead-letter file, which is told of once.
        let all: std::collections::BTreeSet<&str> = pinned.values().flatten().map(String::as_str).collect();
        let all: Vec<&str> = all.into_iter().collect();
        vault.notice("webhooks", (!all.is_empty()).then(|| all.join("; ")));
    }
}
