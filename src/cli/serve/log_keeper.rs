//! Looks after the log beside the server: signs its head at an interval, shows it to the witnesses, closes its years. INVARIANT:
//! nothing here holds up a call; a witness that does not take a head is told of, tried again with growing pauses, and never
//! waited for.

use std::io;
use std::time::Duration;

use tokio::sync::watch;

use super::witness::WitnessFile;
use super::{runtime, told};
use crate::config::AuditConfig;
use crate::rpc::listener::Stop;
use crate::vault::Vault;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a witness may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The loop, until told to stop.
pub(super) fn keep(vault: &Vault, config: &AuditConfig, stop: &Stop) -> io::Result<()> {
    runtime()?.block_on(async {
        let (heads, posted) = watch::channel(String::new());
        let stopped = stop.wait();
        tokio::pin!(stopped);
        let work = async {
            loop {
                step(vault, config, &heads).await;
                tokio::time::sleep(config.checkpoint_interval).await;
            }
        };
        tokio::select! {
            () = &mut stopped => {}
            () = work => {}
            () = post_all(vault, config.witness_url.as_deref(), posted) => {}
        }
        Ok(())
    })
}

/// The head as it is when the server has stopped; the one chance that the witnesses have left.
pub(super) fn last_head(vault: &Vault, config: &AuditConfig) -> io::Result<()> {
    runtime()?.block_on(async {
        let head = match vault.sign_now().await {
            Ok(Some(head)) => head.note,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(reason = told(&error), "the log's last head could not be signed");
                return Ok(());
            }
        };
        append(vault, config, &head);
        if let Some(url) = &config.witness_url
            && let Err(why) = post(url, head).await
        {
            tracing::warn!(why, "the witness has not taken the log's last head");
        }
        Ok(())
    })
}

async fn step(vault: &Vault, config: &AuditConfig, heads: &watch::Sender<String>) {
    loop {
        match vault.keep_log().await {
            Ok(kept) => {
                if let Some(last) = kept.closed {
                    append(vault, config, &last.note);
                }
                if !kept.more {
                    break;
                }
            }
            Err(error) => {
                tracing::error!(reason = told(&error), "the log's years could not be looked after");
                break;
            }
        }
    }
    match vault.sign_now().await {
        Ok(Some(head)) if *heads.borrow() != head.note => {
            append(vault, config, &head.note);
            heads.send_replace(head.note);
        }
        Ok(_) => {}
        Err(error) => tracing::error!(reason = told(&error), "the log's head could not be signed"),
    }
}

fn append(vault: &Vault, config: &AuditConfig, note: &str) {
    let Some(path) = &config.witness_file else { return };
    let failed = WitnessFile::new(path).append(note).err();
    let warning = failed.map(|error| {
        tracing::warn!(%error, "the witness file has not taken a head");
        format!("the witness file {} does not take the log's heads: {error}", path.display())
    });
    vault.notice("witness file", warning);
}

/// Posts the newest head until it is taken or there is a newer one.
async fn post_all(vault: &Vault, url: Option<&str>, mut heads: watch::Receiver<String>) {
    let Some(url) = url else { return std::future::pending().await };
    while heads.changed().await.is_ok() {
        let mut pause = FIRST_PAUSE;
        loop {
            let head = heads.borrow_and_update().clone();
            let Err(why) = post(url, head).await else { break };
            tracing::warn!(why, "the witness has not taken a head; it will be tried again");
            vault.notice("witness", Some(format!("the witness does not take the log's heads: {why}")));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        vault.notice("witness", None);
    }
}

async fn post(url: &str, note: String) -> Result<(), String> {
    let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build();
    let client = client.map_err(|error| told(&error))?;
    let request = client.post(url).header("content-type", "text/plain; charset=utf-8").body(note);
    // The address may hold a secret of the witness's.
    let answer = request.send().await.map_err(|error| told(&error.without_url()))?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}
