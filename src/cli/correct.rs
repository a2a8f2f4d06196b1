//! `strongroom correct`: replaces or drops fields of one record. INVARIANT: the token and the values come by standard
//! input or file, and the caller names the revision it saw.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, Once};
use super::customer::Customer;
use crate::crypto::entropy::OsEntropy;
use crate::domain::vocabulary::Class;
use crate::rpc::proto::token_service_client::TokenServiceClient;

const EXAMPLES: &str = "\
The correction is a JSON object in the form of `tokenize`, without `customer`: what is there replaces, what is `null` is \
dropped, the rest stays. The old values are shredded before the answer. `strongroom describe` tells the revision.

Examples:
  strongroom correct --token-file token.json --if-revision 1 --input correction.json
  echo '{\"phone\": null}' | strongroom correct --token-file token.json --if-revision 2";

/// Replaces fields of a record, shredding the old values
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The record's token
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The revision you last saw; another one is refused
    #[arg(long, value_name = "NUMBER")]
    if_revision: u32,
    /// The correction as JSON [default: standard input]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The record's class: what `name` means depends on it
    #[arg(long, default_value = "order", value_parser = client::one_of(Class::ALL, Class::as_str))]
    class: Class,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let token = client::read_token(Some(&args.token_file))?;
    let correction = Customer::parse(&client::read(args.input.as_deref(), "a correction as JSON")?, args.class)?;
    let request = correction.into_correct(&token, args.if_revision, args.once.key(&OsEntropy))?;
    let mut vault = TokenServiceClient::new(client::connect(&args.connection).await?);
    let revision = client::answer(vault.correct(request)).await?.revision;
    client::print_json_line(&json!({ "revision": revision }))
}
