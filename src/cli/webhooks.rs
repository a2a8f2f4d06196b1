//! `strongroom webhooks`: secrets, a first try, and the road back for messages that were never taken. INVARIANT: a secret goes to
//! a file for its owner alone and nowhere else; a message leaves the dead-letter file only when its webhook, of its own tenant, has taken it.

pub(super) mod dead_letters;
pub(super) mod post;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::Failure;
use super::client::{print, print_json_line};
use super::serve::load;
use crate::config::{Config, WebhookConfig};
use crate::crypto::entropy::OsEntropy;
use crate::crypto::root::write_secret;
use crate::crypto::webhook::Secrets;
use crate::domain::announcement::Message;
use crate::domain::id::HookName;
use crate::domain::time::{Clock as _, SystemClock};
use dead_letters::{DeadLetters, Letter};
use post::Receiver;

/// Webhooks: signing secrets, a first try, messages that were never taken.
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    Secret(Secret),
    Ping(Ping),
    Redeliver(Redeliver),
}

const HELP: &str = "\
A server tells a shop over HTTPS what becomes of its records, so that the shop deletes what it keeps itself (pictures, videos, rows)
under their tokens. Messages are signed after the Standard Webhooks specification, sent at least once, and tried again for days;
they name a record by its token's digest and hold no personal data. `strongroom serve --help` shows the table [[webhook]].

Examples:
  strongroom webhooks secret --out /run/secrets/webhook
  strongroom webhooks ping shop --config strongroom.toml
  strongroom webhooks redeliver dead-letters.jsonl --config strongroom.toml";

/// Mint a secret that messages are signed with
#[derive(clap::Args)]
#[command(after_long_help = "\
The receiver needs the same line. To replace a secret, put the new one on a second line of the server's file: every message is then
signed by both; give the receiver the new one, then remove the first line. The file is read anew for every message.

Examples:
  strongroom webhooks secret --out /run/secrets/webhook")]
pub struct Secret {
    /// Where it goes: a new file of mode 0600
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Send a message that tells nothing, to see whether the receiver takes it
#[derive(clap::Args)]
#[command(after_long_help = "\
Needs no running server. The message is of the type `ping`. Exit codes: 0 it was taken; 2 there is no such webhook; 4 it was not
taken, and the reason is printed.

Examples:
  strongroom webhooks ping shop --config strongroom.toml")]
pub struct Ping {
    /// The webhook's name in the configuration
    #[arg(value_name = "WEBHOOK")]
    name: HookName,
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Send the messages of a dead-letter file again, signed anew
#[derive(clap::Args)]
#[command(after_long_help = "\
What is taken leaves the file, what is not stays in it; a webhook that does not take one message is not asked for its others. The
server may run meanwhile. Killed? Run it again: what was under way lies in FILE.redelivering, and may be sent twice.

Examples:
  strongroom webhooks redeliver dead-letters.jsonl --config strongroom.toml")]
pub struct Redeliver {
    /// The file that `dead_letters` names
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The configuration file (TOML), for addresses and secrets
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(args: Args) -> Result<(), Failure> {
    match args {
        Args::Secret(args) => secret(&args.out),
        Args::Ping(args) => super::client(ping(args)),
        Args::Redeliver(args) => super::client(redeliver(args)),
    }
}

fn secret(out: &Path) -> Result<(), Failure> {
    write_secret(out, &Secrets::mint(&OsEntropy)).map_err(|error| Failure::io(out, &error))?;
    print(&format!("{}: a new secret; its receiver needs the same line", out.display()))
}

async fn ping(args: Ping) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let hook = find(&config, &args.name).ok_or_else(|| {
        let names: Vec<&str> = config.webhooks.iter().map(|hook| hook.subscription.name.as_str()).collect();
        Failure::usage(format!("the configuration has no webhook of that name; it has: {}", names.join(", ")))
    })?;
    let now = SystemClock::new().now();
    let receiver = Receiver::new(hook).map_err(Failure::local)?;
    let message = Message::ping(&hook.subscription.tenant, now);
    receiver.post(&message, now).await.map_err(Failure::unreachable)?;
    print_json_line(&json!({ "webhook": args.name.as_str(), "taken": true }))
}

fn find<'a>(config: &'a Config, name: &HookName) -> Option<&'a WebhookConfig> {
    config.webhooks.iter().find(|hook| hook.subscription.name == *name)
}

async fn redeliver(args: Redeliver) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let dead = DeadLetters::new(&args.file);
    let io = |error: std::io::Error| Failure::io(&args.file, &error);
    let aside = dead.take_aside().map_err(io)?;
    let length = aside.file().metadata().map_err(io)?.len();
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}  {elapsed_precise}");
    let bar = ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (mut taken, mut kept, mut silent) = (0_u64, Vec::new(), Silent::default());
    let mut lines = BufReader::new(File::open(aside.path()).map_err(io)?);
    loop {
        let mut line = Vec::new();
        let read = lines.read_until(b'\n', &mut line).map_err(io)?;
        if read == 0 {
            break;
        }
        if !line.trim_ascii().is_empty() {
            match silent.deliver(&config, &line).await {
                true => taken += 1,
                false => kept.push(line),
            }
        }
        bar.inc(read as u64);
        bar.set_message(format!("{taken} taken, {} not", kept.len()));
    }
    bar.finish_and_clear();
    dead.put_back(&kept).map_err(io)?;
    aside.clear().map_err(io)?;
    match kept.len() {
        0 => print_json_line(&json!({ "taken": taken, "kept": 0 })),
        kept => {
            let why: Vec<&str> = silent.why.iter().map(String::as_str).collect();
            Err(Failure::unreachable(format!("{taken} messages were taken, {kept} stay: {}", why.join("; "))))
        }
    }
}

/// Webhooks that did not take a message, which are not asked again, and why.
#[derive(Default)]
struct Silent {
    hooks: BTreeSet<HookName>,
    why: BTreeSet<String>,
}

impl Silent {
    /// Whether the message of a line was taken.
    async fn deliver(&mut self, config: &Config, line: &[u8]) -> bool {
        let Some(Letter { hook: name, tenant, message }) = Letter::parse(line) else {
            self.why.insert("a line is no whole message".to_owned());
            return false;
        };
        if self.hooks.contains(&name) {
            return false;
        }
        let Some(hook) = find(config, &name) else {
            self.why.insert(format!("the configuration has no webhook {name}"));
            return false;
        };
        // SECURITY: the name may have become another tenant's since, which must not learn of this one's records.
        if hook.subscription.tenant != tenant {
            self.why.insert(format!("webhook {name} is another tenant's than a message"));
            return false;
        }
        let posted = match Receiver::new(hook) {
            Ok(receiver) => receiver.post(&message, SystemClock::new().now()).await,
            Err(why) => Err(why),
        };
        if let Err(why) = posted {
            self.why.insert(format!("webhook {name}: {why}"));
            self.hooks.insert(name);
            return false;
        }
        true
    }
}
