//! `strongroom tokenize`: one customer in, one token out. INVARIANT: the customer comes by standard input or file.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, Once};
use super::customer::{Customer, Flaw};
use crate::crypto::entropy::OsEntropy;
use crate::domain::vocabulary::Class;
use crate::rpc::proto::token_service_client::TokenServiceClient;

const EXAMPLES: &str = "\
The customer is one JSON object. Only `customer` is required, `null` means absent, unknown keys are refused:
  {\"order\": \"SO-1\", \"customer\": \"SO-c1\", \"name\": \"…\", \"email\": \"…\", \"phone\": \"+376 312 690\",
   \"address\": {\"lines\": [\"…\"], \"locality\": \"…\", \"region\": \"\", \"postal_code\": \"…\", \"country\": \"AD\"},
   \"emergency_contact\": {\"name\": \"…\", \"phone\": \"…\"}, \"payment_account\": \"…\", \"note\": \"…\"}
`customer` is your own reference of the person, `name` the recipient's (in an account: the account's). `order` is not \
sent; it is printed beside the token.

Examples:
  strongroom tokenize --input customer.json > token.json
  strongroom tokenize < customer.json | strongroom describe";

/// Stores one customer's data and prints the token that stands for it
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The customer as JSON [default: standard input]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Which retention rules the record lives by
    #[arg(long, default_value = "order", value_parser = client::one_of(Class::ALL, Class::as_str))]
    class: Class,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let text = client::read(args.input.as_deref(), "a customer as JSON")?;
    let customer = Customer::parse(&text, args.class)?;
    let order = customer.order.clone();
    let request = customer.into_tokenize(args.class, args.once.key(&OsEntropy))?;
    let mut vault = TokenServiceClient::new(client::connect(&args.connection).await?);
    let token = client::answer(vault.tokenize(request)).await?.token;
    match order {
        Some(order) => client::print_json_line(&json!({ "order": order, "token": token })),
        None => client::print_json_line(&json!({ "token": token })),
    }
}

impl From<Flaw> for Failure {
    fn from(flaw: Flaw) -> Self {
        Failure::usage(format!("the customer cannot be sent: {flaw} (`strongroom tokenize --help` shows the form)"))
    }
}
