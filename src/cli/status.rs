//! `strongroom status`: how the vault is. INVARIANT: numbers and warnings, no personal data; the warnings come last,
//! where they are seen.

use comfy_table::{Table, presets};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::Failure;
use super::client::{self, Connection, reason_name};
use super::unseal::shown;
use crate::rpc::proto::operations_service_client::OperationsServiceClient;
use crate::rpc::proto::seal_service_client::SealServiceClient;
use crate::rpc::proto::{ErrorReason, SealStatusRequest, StatusRequest, StatusResponse};

const EXAMPLES: &str = "\
For an operator's certificate. Of a sealed vault it tells that, and ends with exit code 4.

Examples:
  strongroom status
  strongroom status --json";

/// Tells how the vault is: numbers and warnings
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let channel = client::connect(&args.connection).await?;
    let mut vault = OperationsServiceClient::new(channel.clone());
    let status = match client::answer(vault.status(StatusRequest {})).await {
        Err(failure) if failure.message.contains(reason_name(ErrorReason::Sealed)) => {
            return print_sealed(channel, failure).await;
        }
        answered => answered?,
    };
    if args.json { client::print_json(&to_json(&status)) } else { print_table(&status) }
}

/// A sealed vault has no numbers: why it is sealed, and how many shares are in.
async fn print_sealed(channel: Channel, failure: Failure) -> Result<(), Failure> {
    let mut vault = SealServiceClient::new(channel);
    let state = client::answer(vault.seal_status(SealStatusRequest {})).await?.state;
    client::print_json(&state.as_ref().map_or(Value::Null, shown))?;
    Err(failure)
}

fn to_json(status: &StatusResponse) -> Value {
    let protection = status.protection.clone().unwrap_or_default();
    json!({
        "version": status.version,
        "now": client::shown(status.now),
        "mark": client::shown(status.mark),
        "started_at": client::shown(status.started_at),
        "policy_id": status.policy_id,
        "policy_version": status.policy_version,
        "records_live": status.records_live,
        "records_due": status.records_due,
        "tombstones": status.tombstones,
        "sweep_lag_seconds": status.sweep_lag_seconds,
        "sweep_paused": status.sweep_paused,
        "audit_entries": status.audit_entries,
        "audit_root": status.audit_root,
        "ledger_entries": status.ledger_entries,
        "active_epoch": status.active_epoch,
        "keyring_generation": status.keyring_generation,
        "root_source": status.root_source,
        "key_memory": protection.key_memory,
        "no_core": protection.no_core,
        "landlock_abi": protection.landlock_abi,
        "seccomp": protection.seccomp,
        "warnings": status.warnings,
    })
}

fn print_table(status: &StatusResponse) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if let Value::Object(members) = to_json(status) {
        for (key, value) in members.iter().filter(|(key, _)| *key != "warnings") {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.add_row([key.replace('_', " "), value]);
        }
    }
    client::print(&table.to_string())?;
    match status.warnings.as_slice() {
        [] => client::print("\nNo warnings."),
        warnings => warnings.iter().try_for_each(|warning| client::print(&format!("\nWARNING: {warning}"))),
    }
}
