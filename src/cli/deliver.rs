//! `strongroom deliver`: a carrier reads the address of its parcel, or confirms the delivery. INVARIANT: the serial
//! comes by standard input or file.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, Once};
use super::customer::address_to_json;
use crate::crypto::entropy::OsEntropy;
use crate::domain::time::Timestamp;
use crate::rpc::proto::delivery_service_client::DeliveryServiceClient;
use crate::rpc::proto::{ConfirmDeliveryRequest, GetDeliveryRequest};

const EXAMPLES: &str = "\
For a carrier's certificate. Reading counts against the grant; confirming ends it and reports the delivery.

Examples:
  echo SW123456789 | strongroom deliver
  strongroom deliver --input serial.txt --confirm --at 2026-03-01T12:00:00Z";

/// Reads the address and serial of a parcel granted to this carrier, or confirms its delivery
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The parcel's serial [default: standard input]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Confirm that the parcel was signed for, which ends the grant
    #[arg(long)]
    confirm: bool,
    /// When it was signed for, as 2026-03-01T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::instant, requires = "confirm")]
    at: Option<Timestamp>,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let serial = client::read_text(args.input.as_deref(), "a serial")?.to_string();
    let mut vault = DeliveryServiceClient::new(client::connect(&args.connection).await?);
    if args.confirm {
        let delivered_at = Some(client::to_wire(client::or_now(args.at)));
        let idempotency_key = args.once.key(&OsEntropy);
        client::answer(vault.confirm_delivery(ConfirmDeliveryRequest { idempotency_key, serial, delivered_at }))
            .await?;
        return client::print_json_line(&json!({ "confirmed": true }));
    }
    let delivery = client::answer(vault.get_delivery(GetDeliveryRequest { serial })).await?;
    let address = delivery.address.as_ref().map(address_to_json);
    let (serial, phone) = (delivery.serial.as_str(), delivery.phone.as_str());
    client::print_json(&if phone.is_empty() {
        json!({ "serial": serial, "address": address })
    } else {
        json!({ "serial": serial, "address": address, "phone": phone })
    })
}
