//! `strongroom revoke`: ends a carrier's grant. INVARIANT: a grant's id says nothing of a person, so it may stand on
//! the command line.

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, Once};
use crate::crypto::entropy::OsEntropy;
use crate::rpc::proto::RevokeShipmentRequest;
use crate::rpc::proto::lifecycle_service_client::LifecycleServiceClient;

const EXAMPLES: &str = "\
From the answer on the carrier reads nothing under this grant. Ending an ended grant answers the same.

Examples:
  strongroom revoke GRANT     (the id that `strongroom grant` printed)";

/// Ends a carrier's grant at once
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The grant's id
    #[arg(value_name = "GRANT")]
    grant: String,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let request = RevokeShipmentRequest { idempotency_key: args.once.key(&OsEntropy), grant_id: args.grant };
    let mut vault = LifecycleServiceClient::new(client::connect(&args.connection).await?);
    client::answer(vault.revoke_shipment(request)).await?;
    client::print_json_line(&json!({ "revoked": true }))
}
