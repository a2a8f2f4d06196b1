//! `strongroom retention resume`: an operator vouches for what is due. INVARIANT: nobody is asked by a program; the command is
//! the confirmation.

use serde_json::json;

use super::Failure;
use super::client::{self, Connection};
use crate::rpc::proto::ResumeSweepRequest;
use crate::rpc::proto::operations_service_client::OperationsServiceClient;

const EXAMPLES: &str = "\
When far more records come due within a day than was forecast, the vault stops to destroy them, because a wrong clock or false
events could have made them due; they stay unreadable meanwhile. Look at the clock, at what was reported of late, and how
many are due; destruction cannot be undone.

Examples:
  strongroom status          (`sweep paused` is true, a warning says so, `records due` counts)
  strongroom retention resume";

/// Vouches for all that is due now, so that the sweeper goes on
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut vault = OperationsServiceClient::new(client::connect(&args.connection).await?);
    let due = client::answer(vault.resume_sweep(ResumeSweepRequest {})).await?.records_due;
    client::print_json_line(&json!({ "records_due": due }))
}
