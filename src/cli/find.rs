//! `strongroom find`: from a value to the tokens of the records that hold it. INVARIANT: the value comes by standard input or file,
//! never by an argument; tokens are all that is printed.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, one_of};
use crate::domain::vocabulary::{Class, Findable, Purpose};
use crate::rpc::proto::FindRequest;
use crate::rpc::proto::find_request::By;
use crate::rpc::proto::token_service_client::TokenServiceClient;

const EXAMPLES: &str = "\
For a shop's, customer service's or privacy officer's certificate. A class is found by what its policy makes findable; a
caller finds by what it may see, masked at least, for the purpose.

Examples:
  echo anne@example.org | strongroom find --by email --class account --purpose subject_request
  strongroom find --by customer_reference --class order --purpose self_service --input reference.txt";

/// Finds the tokens of the records that hold a value
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What the value is
    #[arg(long, value_name = "KIND", value_parser = one_of(Findable::ALL, Findable::as_str))]
    by: Findable,
    /// Records of which class
    #[arg(long, value_name = "CLASS", value_parser = one_of(Class::ALL, Class::as_str))]
    class: Class,
    /// Why
    #[arg(long, value_name = "PURPOSE", value_parser = one_of(Purpose::ALL, Purpose::as_str))]
    purpose: Purpose,
    /// The value [default: standard input]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let value = client::read_text(args.input.as_deref(), "the value")?.to_string();
    let by = match args.by {
        Findable::Email => By::Email(value),
        Findable::Phone => By::Phone(value),
        Findable::CustomerReference => By::CustomerReference(value),
    };
    let mut vault = TokenServiceClient::new(client::connect(&args.connection).await?);
    let mut request = FindRequest {
        purpose: args.purpose.code().into(),
        class: args.class.code().into(),
        by: Some(by),
        page_size: 0,
        page_token: Vec::new(),
    };
    loop {
        let page = client::answer(vault.find(request.clone())).await?;
        for token in page.tokens {
            client::print_json_line(&json!({ "token": token }))?;
        }
        if page.page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.page_token;
    }
}
