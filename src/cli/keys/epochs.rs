//! `strongroom keys list`, `rotate`, `destroy`, `postpone`, `rotate-root`: the epochs of a server's keys. INVARIANT: what takes two
//! people prints the number that the second one approves.

use std::io::IsTerminal as _;
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::cli::Failure;
use crate::cli::callers::print_pending;
use crate::cli::client::{self, Connection, instant, print, print_json, to_wire};
use crate::domain::time::Timestamp;
use crate::rpc::proto::key_service_client::KeyServiceClient;
use crate::rpc::proto::{
    DestroyEpochRequest, EpochState, KeyEpoch, ListKeysRequest, ListKeysResponse, PostponeEpochRequest,
    RotateKekRequest, RotateRootRequest, destroy_epoch_response, postpone_epoch_response,
};

#[derive(clap::Subcommand)]
pub enum Args {
    /// List the epochs: since when, until when, and what lies under each; the copies of the keyring; what is overdue
    #[command(after_long_help = "\
For a key admin's, an operator's or an auditor's certificate.

Examples:
  strongroom keys list
  strongroom keys list --json")]
    List {
        /// Print JSON instead of tables
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Make another epoch active now, and rewrap what lies under the older ones
    #[command(after_long_help = "\
For an emergency: by itself, this happens on schedule. Nothing is interrupted. Stopping this command stops nothing: the server
goes on, also after a restart, and giving the command again shows how far it is.

Examples:
  strongroom keys rotate
  strongroom keys rotate --epoch 7         # only if 7 is still the active one; else just show how far the rewrap is")]
    Rotate {
        /// The epoch to replace [default: the active one]
        #[arg(long, value_name = "NUMBER")]
        epoch: Option<u32>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Destroy an epoch before its time; takes two people, and nothing may lie under it
    #[command(after_long_help = "\
From then on no backup that needs this epoch can be opened by anybody. Prints the number of the request; once a second person
has approved it (`strongroom approve yes NUMBER`), the same command carries it out.

Examples:
  strongroom keys destroy --epoch 6")]
    Destroy {
        #[arg(long, value_name = "NUMBER")]
        epoch: u32,
        #[command(flatten)]
        connection: Connection,
    },
    /// Keep an epoch beyond its time, for a backup that may still be needed; takes two people
    #[command(after_long_help = "\
So long, what was erased in the meantime can be opened in old backups: the status warns of it.

Examples:
  strongroom keys postpone --epoch 6 --until 2026-09-01T00:00:00Z")]
    Postpone {
        #[arg(long, value_name = "NUMBER")]
        epoch: u32,
        /// Later than the schedule has it, by a year at most
        #[arg(long, value_name = "TIME", value_parser = instant)]
        until: Timestamp,
        #[command(flatten)]
        connection: Connection,
    },
    /// Seal the keyring and its copies under the [next_root] of the server's configuration
    #[command(after_long_help = "\
Make the next root first, name it as [next_root] in the server's configuration, restart, then give this command; when it has
answered, move [next_root] to [root] and destroy the old root. Keep the old root until every copy was rewritten.

Examples:
  strongroom keys rotate-root")]
    RotateRoot {
        #[command(flatten)]
        connection: Connection,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::from)?.block_on(over_the_wire(args))
}

async fn over_the_wire(args: Args) -> Result<(), Failure> {
    match args {
        Args::List { json, connection } => {
            let mut vault = connect(&connection).await?;
            let listed = client::answer(vault.list_keys(ListKeysRequest {})).await?;
            if json { print_json(&to_json(&listed)) } else { print_tables(&listed) }
        }
        Args::Rotate { epoch, connection } => rotate(connect(&connection).await?, epoch).await,
        Args::Destroy { epoch, connection } => {
            use destroy_epoch_response::Result::{Done, PendingApproval};
            let mut vault = connect(&connection).await?;
            match client::answer(vault.destroy_epoch(DestroyEpochRequest { epoch })).await?.result {
                Some(Done(done)) => print_json(&json!({ "destroyed_epoch": done.epoch })),
                Some(PendingApproval(pending)) => print_pending(&pending),
                None => Err(no_result()),
            }
        }
        Args::Postpone { epoch, until, connection } => {
            use postpone_epoch_response::Result::{Done, PendingApproval};
            let mut vault = connect(&connection).await?;
            let request = PostponeEpochRequest { epoch, until: Some(to_wire(until)) };
            match client::answer(vault.postpone_epoch(request)).await?.result {
                Some(Done(done)) => {
                    print_json(&json!({ "epoch": done.epoch, "kept_until": client::shown(done.until) }))
                }
                Some(PendingApproval(pending)) => print_pending(&pending),
                None => Err(no_result()),
            }
        }
        Args::RotateRoot { connection } => {
            let mut vault = connect(&connection).await?;
            let done = client::answer(vault.rotate_root(RotateRootRequest {})).await?;
            print_json(&json!({ "sealed_under": "next_root", "keyring_generation": done.generation }))
        }
    }
}

async fn connect(connection: &Connection) -> Result<KeyServiceClient<Channel>, Failure> {
    Ok(KeyServiceClient::new(client::connect(connection).await?))
}

async fn rotate(mut vault: KeyServiceClient<Channel>, epoch: Option<u32>) -> Result<(), Failure> {
    let active_epoch = match epoch {
        Some(epoch) => epoch,
        None => {
            let listed = client::answer(vault.list_keys(ListKeysRequest {})).await?;
            let active = listed.epochs.iter().find(|epoch| epoch.state() == EpochState::Active);
            active.map(|epoch| epoch.epoch).ok_or_else(no_result)?
        }
    };
    let mut told = client::answer(vault.rotate_kek(RotateKekRequest { active_epoch })).await?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_style(
        ProgressStyle::with_template("{wide_bar} {pos} of {len} rows, {per_sec}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    let (mut first_left, mut last) = (None, None);
    while let Some(progress) = client::next(&mut told, "the server goes on").await? {
        // More may come under way while it runs: rows are written until the very promotion.
        let all = *first_left.get_or_insert(progress.rows_left);
        bar.set_length(all.max(progress.rows_left));
        bar.set_position(all.saturating_sub(progress.rows_left));
        last = Some(progress);
    }
    bar.finish_and_clear();
    let last = last.ok_or_else(no_result)?;
    print_json(
        &json!({ "active_epoch": last.active_epoch, "rows_left": last.rows_left, "rows_moved": last.rows_moved }),
    )
}

fn no_result() -> Failure {
    Failure::refused("the server answered without a result")
}

fn to_json(listed: &ListKeysResponse) -> Value {
    let epoch = |epoch: &KeyEpoch| {
        let rows = epoch.rows.iter().map(|rows| (plain(&rows.table), json!(rows.rows)));
        json!({
            "epoch": epoch.epoch,
            "state": state(epoch),
            "created_at": client::shown(epoch.created_at),
            "active_since": client::shown(epoch.active_since),
            "active_until": client::shown(epoch.active_until),
            "rewrap_by": client::shown(epoch.rewrap_by),
            "destroy_at": client::shown(epoch.destroy_at),
            "postponed_until": client::shown(epoch.postponed_until),
            "rows": rows.collect::<serde_json::Map<_, _>>(),
        })
    };
    let copies = listed.copies.iter().map(|copy| json!({ "path": plain(&copy.path), "generation": copy.generation }));
    json!({
        "generation": listed.generation,
        "backup_horizon_days": listed.backup_horizon_days,
        "epochs": listed.epochs.iter().map(epoch).collect::<Vec<_>>(),
        "copies": copies.collect::<Vec<_>>(),
        "warnings": listed.warnings.iter().map(|text| plain(text)).collect::<Vec<_>>(),
    })
}

fn print_tables(listed: &ListKeysResponse) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["epoch", "state", "active since", "next", "rows under it"]);
    for epoch in &listed.epochs {
        let next = match (epoch.active_until, epoch.destroy_at) {
            (Some(until), _) => format!("replaced {}", client::shown(Some(until)).unwrap_or_default()),
            (None, Some(at)) => format!("destroyed {}", client::shown(Some(at)).unwrap_or_default()),
            (None, None) => "becomes active".to_owned(),
        };
        let rows: Vec<String> = epoch.rows.iter().map(|rows| format!("{} {}", plain(&rows.table), rows.rows)).collect();
        let rows = if rows.is_empty() { "none".to_owned() } else { rows.join(", ") };
        let since = client::shown(epoch.active_since).unwrap_or_default();
        table.add_row([epoch.epoch.to_string(), state(epoch), since, next, rows]);
    }
    print(&table.to_string())?;
    print(&format!(
        "\nKeyring of generation {}; what is erased opens in no backup after {} days.",
        listed.generation, listed.backup_horizon_days
    ))?;
    for copy in &listed.copies {
        let generation =
            if copy.generation == 0 { "MISSING".to_owned() } else { format!("generation {}", copy.generation) };
        print(&format!("Copy {}: {generation}", plain(&copy.path)))?;
    }
    listed.warnings.iter().try_for_each(|warning| print(&format!("\nWARNING: {}", plain(warning))))
}

fn state(epoch: &KeyEpoch) -> String {
    epoch.state().as_str_name().trim_start_matches("EPOCH_STATE_").to_lowercase()
}

/// What a server says, fit for a terminal.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}
