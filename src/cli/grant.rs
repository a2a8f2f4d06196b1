//! `strongroom grant`: lets one carrier read one parcel's address. INVARIANT: the token and the serial come by standard
//! input or file.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, Once};
use crate::crypto::entropy::OsEntropy;
use crate::domain::id::CallerName;
use crate::domain::time::{DAY, Timestamp};
use crate::rpc::proto::GrantShipmentRequest;
use crate::rpc::proto::lifecycle_service_client::LifecycleServiceClient;

const EXAMPLES: &str = "\
The carrier sees the address and the serial of this parcel, within the window, so many times, and nothing else. The grant \
ends when the carrier confirms delivery, or with `strongroom revoke`. One of the two files may be standard input: leave \
it out.

Examples:
  strongroom grant --carrier swift --token-file token.json --serial-file serial.txt
  echo SW123456789 | strongroom grant --carrier swift --token-file token.json --days 14 --reads 5";

/// Lets a carrier read the address of one parcel
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The carrier: the last part of its certificate's identity
    #[arg(long, value_name = "NAME")]
    carrier: CallerName,
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE", required_unless_present = "serial_file")]
    token_file: Option<PathBuf>,
    /// The parcel's logistics number [default: standard input]
    #[arg(long, value_name = "FILE")]
    serial_file: Option<PathBuf>,
    /// When the window opens, as 2026-03-01T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    not_before: Option<Timestamp>,
    /// How long the window stays open, in days
    #[arg(long, default_value_t = 30, value_name = "DAYS")]
    days: u16,
    /// When the window closes, instead of --days
    #[arg(long, value_name = "TIME", value_parser = client::instant, conflicts_with = "days")]
    not_after: Option<Timestamp>,
    /// How often the carrier may read, 1 to 1000
    #[arg(long, default_value_t = 20, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    reads: u32,
    /// Which parcel of the record, from 0
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    parcel: u32,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let not_before = client::or_now(args.not_before);
    let not_after = args.not_after.unwrap_or_else(|| not_before.plus(i64::from(args.days) * DAY));
    let request = GrantShipmentRequest {
        idempotency_key: args.once.key(&OsEntropy),
        token: client::read_token(args.token_file.as_deref())?.to_string(),
        serial: client::read_text(args.serial_file.as_deref(), "a serial")?.to_string(),
        carrier: args.carrier.as_str().to_owned(),
        not_before: Some(client::to_wire(not_before)),
        not_after: Some(client::to_wire(not_after)),
        read_limit: args.reads,
        parcel: args.parcel,
    };
    let mut vault = LifecycleServiceClient::new(client::connect(&args.connection).await?);
    let grant = client::answer(vault.grant_shipment(request)).await?.grant_id;
    client::print_json_line(&json!({ "grant": grant }))
}
