//! `strongroom erase`: destroys one record, for good. INVARIANT: the token comes by standard input or file, and the
//! reason is stated.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, Once};
use crate::crypto::entropy::OsEntropy;
use crate::domain::vocabulary::EraseReason;
use crate::rpc::proto::EraseRequest;
use crate::rpc::proto::token_service_client::TokenServiceClient;

/// What a caller may state; the others are the retention timer's.
const REASONS: &[EraseReason] =
    &[EraseReason::SubjectRequest, EraseReason::Cancellation, EraseReason::Minor, EraseReason::Controller];

const EXAMPLES: &str = "\
There is no way back: the record's key is destroyed before the answer. Erasing an erased record answers the same.

Examples:
  strongroom erase --token-file token.json --reason subject_request";

/// Destroys a record, now and for good
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Why: the data subject asked, the account or order was cancelled, a minor's data, or the shop decided
    #[arg(long, value_parser = client::one_of(REASONS, EraseReason::as_str))]
    reason: EraseReason,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let token = client::read_token(args.token_file.as_deref())?.to_string();
    let (idempotency_key, reason) = (args.once.key(&OsEntropy), i32::from(args.reason.code()));
    let mut vault = TokenServiceClient::new(client::connect(&args.connection).await?);
    let erased = client::answer(vault.erase(EraseRequest { idempotency_key, token, reason })).await?;
    client::print_json_line(&json!({ "erased_at": client::shown(erased.erased_at) }))
}
