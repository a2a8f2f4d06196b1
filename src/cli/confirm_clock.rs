//! `strongroom retention confirm-clock`: an operator vouches for the wall clock. INVARIANT: nobody is asked by a
//! program; the command is the confirmation.

use serde_json::json;

use super::Failure;
use super::client::{self, Connection};
use crate::rpc::proto::ConfirmClockRequest;
use crate::rpc::proto::operations_service_client::OperationsServiceClient;

const EXAMPLES: &str = "\
After a leap of the clock or a reboot the vault destroys nothing until somebody vouches for the time, because a wrong \
clock could destroy records early. Compare `date -u` on the server with a clock you trust first; destruction cannot be \
undone.

Examples:
  strongroom status          (`now` and `mark` differ, a warning says so)
  strongroom retention confirm-clock";

/// Vouches for the server's clock, so that destruction goes by it
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut vault = OperationsServiceClient::new(client::connect(&args.connection).await?);
    let mark = client::answer(vault.confirm_clock(ConfirmClockRequest {})).await?.mark;
    client::print_json_line(&json!({ "mark": client::shown(mark) }))
}
