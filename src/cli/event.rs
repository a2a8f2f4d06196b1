//! `strongroom event`: reports what happened in the shop's business. INVARIANT: the token comes by standard input or
//! file.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, Once};
use crate::crypto::entropy::OsEntropy;
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::EventKind;
use crate::rpc::proto::ReportEventRequest;
use crate::rpc::proto::lifecycle_service_client::LifecycleServiceClient;

const EXAMPLES: &str = "\
Events start and hold retention: `delivered` starts the after-sales period, `after_sales_opened` and `refund_opened` hold \
it until closed and settled. Repeats change nothing and the order of arrival does not matter.

Examples:
  strongroom event delivered --token-file token.json --at 2026-03-01T12:00:00Z
  strongroom event after_sales_opened --ordinal 0 --token-file token.json";

/// Tells the vault of a business event, and prints when the record will be due
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What happened
    #[arg(value_name = "EVENT", value_parser = client::one_of(EventKind::ALL, EventKind::as_str))]
    kind: EventKind,
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Which parcel, case or refund of this record, from 0
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    ordinal: u32,
    /// When it happened, as 2026-03-01T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    at: Option<Timestamp>,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let request = ReportEventRequest {
        idempotency_key: args.once.key(&OsEntropy),
        token: client::read_token(args.token_file.as_deref())?.to_string(),
        kind: i32::from(args.kind.code()),
        ordinal: args.ordinal,
        occurred_at: Some(client::to_wire(client::or_now(args.at))),
    };
    let mut vault = LifecycleServiceClient::new(client::connect(&args.connection).await?);
    let answer = client::answer(vault.report_event(request)).await?;
    client::print_json_line(&json!({ "due": client::shown(answer.due), "due_by": answer.due_by }))
}
