//! `strongroom backup`: a copy of the database beside the running server. INVARIANT: the copy never passes through here; the server
//! writes it, and the keyring and the root are not in it.

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::Failure;
use super::client::{self, Connection};
use crate::rpc::proto::BackupRequest;
use crate::rpc::proto::operations_service_client::OperationsServiceClient;

const EXAMPLES: &str = "\
The server copies its database into the folder that its configuration names ([data] backups), while everything goes on: a \
file NAME.db and, once that is whole, its signed NAME.manifest. Take both elsewhere. A backup opens only with the keyring and \
its root, which are not in it: keep them apart from it, and keep the newest copy of the erasure ledger, which a restore needs. \
After the date that is printed nobody can open it any more: delete it then. On a disk that would have no room for the reserve \
left none is made.

Examples:
  strongroom backup
  strongroom backup && rsync -a /backups/ elsewhere:/backups/ && strongroom restore --help";

/// Copies the database beside the running server
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut vault = OperationsServiceClient::new(client::connect(&args.connection).await?);
    let mut told = client::answer(vault.backup(BackupRequest {})).await?;
    let bar = bar("pages");
    let mut last = None;
    while let Some(progress) = client::next(&mut told, "the server goes on").await? {
        bar.set_length(progress.pages);
        bar.set_position(progress.pages_copied);
        last = Some(progress);
    }
    bar.finish_and_clear();
    match last.filter(|last| !last.manifest.is_empty()) {
        Some(done) => client::print_json(&json!({
            "manifest": done.manifest.replace(char::is_control, "?"),
            "dead_after": client::shown(done.dead_after),
        })),
        None => Err(Failure::unreachable("the server ended before the backup was made")),
    }
}

/// A bar of these things, on a terminal alone.
pub(super) fn bar(things: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template(&format!("{{wide_bar}} {{pos}} of {{len}} {things}, {{eta}} left"));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
