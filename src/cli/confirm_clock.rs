//! `strongroom retention confirm-clock`: an operator vouches for the wall clock. INVARIANT: what is vouched for is a time by another
//! clock than the server's, so that a server that is wrong is told so and nothing else happens.

use serde_json::json;

use super::Failure;
use super::client::{self, Connection};
use crate::domain::time::Timestamp;
use crate::rpc::proto::ConfirmClockRequest;
use crate::rpc::proto::operations_service_client::OperationsServiceClient;

const EXAMPLES: &str = "\
After a leap of the clock or a reboot the vault destroys nothing until somebody vouches for the time, because a wrong \
clock could destroy records early, and destruction cannot be undone. You vouch for what this machine's clock says: call from \
another machine than the server, or read the time off a clock you trust (a phone, a radio clock) and give it with --time. Where \
the server's clock is more than 5 minutes from it, nothing happens but an error: one of the two is wrong, set it right.

A clock behind the time that is known to have passed is not confirmed but set right; then all goes on by itself.

Examples:
  strongroom status          (`now` and `mark` differ, a warning says so)
  strongroom retention confirm-clock
  strongroom retention confirm-clock --time 2026-11-25T19:30:00Z";

/// Vouches for the server's clock, so that destruction goes by it
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What time it is, as 2026-11-25T19:30:00Z, by a clock you trust [default: this machine's clock]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    time: Option<Timestamp>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut vault = OperationsServiceClient::new(client::connect(&args.connection).await?);
    let request = ConfirmClockRequest { time: Some(client::to_wire(client::or_now(args.time))) };
    let mark = client::answer(vault.confirm_clock(request)).await?.mark;
    client::print_json_line(&json!({ "mark": client::shown(mark) }))
}
