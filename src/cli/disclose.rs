//! `strongroom disclose`: fields of a record for an authority. INVARIANT: without a second person's word nothing is printed but
//! the number it is given by.

use std::path::PathBuf;

use super::Failure;
use super::callers::print_pending;
use super::client::{self, Connection};
use super::detokenize::to_json;
use crate::domain::vocabulary::Field;
use crate::rpc::proto::disclosure_service_client::DisclosureServiceClient;
use crate::rpc::proto::{DetokenizeResponse, DiscloseRequest, disclose_response};

const EXAMPLES: &str = "\
For a privacy officer's certificate. Prints the number of the request; once a second person, another privacy officer or a key
admin, has approved it (`strongroom approve yes NUMBER`), the same command prints the values, once. All of it is in the log
under that number. The case reference is read by the second person: it must name nobody.

Examples:
  strongroom disclose --token-file token.json --case '4 Js 123/26' --field address --field phone
  strongroom approve yes 8f3c0a1b2c3d4e5f60718293a4b5c6d7      # the second person
  strongroom disclose --token-file token.json --case '4 Js 123/26' --field address --field phone";

/// Discloses fields of a record to an authority; takes a case reference and two people
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What to disclose; may be given more than once
    #[arg(
        long = "field", value_name = "FIELD", required = true, value_delimiter = ',',
        value_parser = client::one_of(Field::ALL, Field::as_str)
    )]
    fields: Vec<Field>,
    /// The authority's own reference, 1 to 64 of A-Z, a-z, 0-9, spaces and - . / _ :
    #[arg(long, value_name = "REF")]
    case: String,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    use disclose_response::Result::{Done, PendingApproval};
    let token = client::read_token(args.token_file.as_deref())?.to_string();
    let fields = args.fields.iter().map(|field| i32::from(field.code())).collect();
    let mut vault = DisclosureServiceClient::new(client::connect(&args.connection).await?);
    match client::answer(vault.disclose(DiscloseRequest { token, fields, case: args.case })).await?.result {
        Some(Done(done)) => {
            let read = DetokenizeResponse { fields: done.fields, revision: done.revision };
            client::print_json(&to_json(&read))
        }
        Some(PendingApproval(pending)) => print_pending(&pending),
        None => Err(Failure::refused("the server answered without a result")),
    }
}
