//! `strongroom describe`: what a token stands for. INVARIANT: no value is asked for, and none printed.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection};
use crate::domain::vocabulary::{Class, Field, HoldKind};
use crate::rpc::proto::token_service_client::TokenServiceClient;
use crate::rpc::proto::{DescribeRequest, RecordState};

const EXAMPLES: &str = "\
Tells the record's state, class, revision, which fields it holds, and when it is due and why; never a value.

Examples:
  strongroom describe --token-file token.json
  strongroom tokenize < customer.json | strongroom describe";

/// Tells what a token stands for, without any value
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let token = client::read_token(args.token_file.as_deref())?.to_string();
    let mut vault = TokenServiceClient::new(client::connect(&args.connection).await?);
    let record = client::answer(vault.describe(DescribeRequest { token })).await?;
    let fields = record.fields.iter().map(|code| u8::try_from(*code).ok().and_then(Field::from_code));
    let held = record.held_by.iter().map(|code| u8::try_from(*code).ok().and_then(HoldKind::from_code));
    client::print_json(&json!({
        "state": state(record.state()),
        "class": u8::try_from(record.class).ok().and_then(Class::from_code).map(Class::as_str),
        "revision": record.revision,
        "stored_at": client::shown(record.stored_at),
        "due": client::shown(record.due),
        "due_by": record.due_by,
        "fields": fields.map(|field| field.map_or("unknown", Field::as_str)).collect::<Vec<_>>(),
        "policy_version": record.policy_version,
        "erase_reason": record.erase_reason,
        "held_by": held.map(|hold| hold.map_or("unknown", HoldKind::as_str)).collect::<Vec<_>>(),
    }))
}

fn state(state: RecordState) -> &'static str {
    match state {
        RecordState::Unspecified => "unknown",
        RecordState::Live => "live",
        RecordState::Expired => "expired",
        RecordState::Erased => "erased",
    }
}
