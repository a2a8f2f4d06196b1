//! `strongroom detokenize`: reads fields behind one token or many. INVARIANT: every field asked for is printed with its
//! outcome, a value only where the vault sent one.

use std::path::PathBuf;

use comfy_table::Table;
use serde_json::{Map, Value, json};

use super::Failure;
use super::client::{self, Connection, Named};
use super::customer::{Flaw, value_to_json};
use crate::domain::vocabulary::{Field, Outcome, Purpose};
use crate::rpc::proto::token_service_client::TokenServiceClient;
use crate::rpc::proto::{
    BatchDetokenizeRequest, DetokenizeRequest, DetokenizeResponse, FieldResult, ItemError, batch_detokenize_item,
};

/// What the vault takes in one call.
const PAGE: usize = 256;

const EXAMPLES: &str = "\
Tokens come one a line: bare, as `tokenize` prints them, or as `import` files them. One token prints one JSON document; \
several print one line each, and what was refused is counted at the end.

Examples:
  strongroom detokenize --token-file token.json --fields recipient_name,address --purpose fulfilment --table
  head -20 tokens.jsonl | strongroom detokenize --fields phone --purpose notification";

/// Reads fields of records for a stated purpose
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The tokens [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What to read
    #[arg(long, required = true, value_delimiter = ',', value_parser = client::one_of(Field::ALL, Field::as_str))]
    fields: Vec<Field>,
    /// Why; checked and logged
    #[arg(long, value_parser = client::one_of(Purpose::ALL, Purpose::as_str))]
    purpose: Purpose,
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let tokens = client::read_tokens(args.token_file.as_deref())?;
    let fields: Vec<i32> = args.fields.iter().map(|field| i32::from(field.code())).collect();
    let purpose = i32::from(args.purpose.code());
    let mut vault = TokenServiceClient::new(client::connect(&args.connection).await?);
    if let [one] = tokens.as_slice() {
        let request = DetokenizeRequest { token: one.token.to_string(), fields, purpose };
        let read = client::answer(vault.detokenize(request)).await?;
        return if args.table { print_table(&read.fields) } else { client::print_json(&to_json(&read)) };
    }
    let mut refused = 0;
    for page in tokens.chunks(PAGE) {
        let asked = page.iter().map(|named| named.token.to_string()).collect();
        let request = BatchDetokenizeRequest { tokens: asked, fields: fields.clone(), purpose };
        let items = client::answer(vault.batch_detokenize(request)).await?.items;
        if items.len() != page.len() {
            return Err(Failure::refused("the server answered another number of items than were asked for"));
        }
        for (named, item) in page.iter().zip(items) {
            refused += print_item(named, item.result, args.table)?;
        }
    }
    match refused {
        0 => Ok(()),
        _ => Err(Failure::refused(format!("{refused} of {} tokens were refused; see their lines", tokens.len()))),
    }
}

/// Prints what became of one token; tells how many were refused: 0 or 1.
fn print_item(named: &Named, item: Option<batch_detokenize_item::Result>, table: bool) -> Result<usize, Failure> {
    let (mut printed, refused) = match item {
        Some(batch_detokenize_item::Result::Done(read)) if table => {
            client::print(named.order.as_deref().unwrap_or_default())?;
            print_table(&read.fields)?;
            return Ok(0);
        }
        Some(batch_detokenize_item::Result::Done(read)) => (to_json(&read), 0),
        Some(batch_detokenize_item::Result::Error(error)) => (refusal(&error), 1),
        None => (refusal(&ItemError::default()), 1),
    };
    if let Some(order) = &named.order {
        printed.shift_insert(0, "order".to_owned(), json!(order));
    }
    client::print_json_line(&printed)?;
    Ok(refused)
}

fn refusal(error: &ItemError) -> Map<String, Value> {
    let flaw = Flaw::new(&error.field, error.reason());
    Map::from_iter([("refused".to_owned(), json!({ "reason": flaw.reason, "field": flaw.field }))])
}

pub(super) fn to_json(read: &DetokenizeResponse) -> Map<String, Value> {
    let fields = read.fields.iter().map(|result| {
        let mut printed = Map::from_iter([("outcome".to_owned(), json!(outcome(result)))]);
        if let Some(value) = &result.value {
            printed.insert("value".to_owned(), value_to_json(value));
        }
        (field(result).to_owned(), Value::Object(printed))
    });
    Map::from_iter([
        ("revision".to_owned(), json!(read.revision)),
        ("fields".to_owned(), Value::Object(fields.collect())),
    ])
}

fn print_table(results: &[FieldResult]) -> Result<(), Failure> {
    let mut table = Table::new();
    table.set_header(["field", "outcome", "value"]);
    for result in results {
        let value = result.value.as_ref().map(value_to_json).map(|value| lines(&value).join("\n"));
        table.add_row([field(result), outcome(result), &value.unwrap_or_default()]);
    }
    client::print(&table.to_string())
}

/// The texts of a value, one a line; empty parts of an address take none.
fn lines(value: &Value) -> Vec<String> {
    let mut lines = match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(lines).collect(),
        Value::Object(members) => members.values().flat_map(lines).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    };
    lines.retain(|line| !line.is_empty());
    lines
}

fn field(result: &FieldResult) -> &'static str {
    u8::try_from(result.field).ok().and_then(Field::from_code).map_or("unknown", Field::as_str)
}

fn outcome(result: &FieldResult) -> &'static str {
    u8::try_from(result.outcome).ok().and_then(Outcome::from_code).map_or("unknown", Outcome::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::{Address, field_result};

    fn read() -> DetokenizeResponse {
        let lines = vec!["28th Street".to_owned(), String::new()];
        let mut address = Address::default();
        (address.lines, address.locality) = (lines, "Abu Dhabi".to_owned());
        let address = field_result::Value::Address(address);
        DetokenizeResponse {
            fields: vec![
                FieldResult { field: 3, outcome: 1, value: Some(address) },
                FieldResult { field: 5, outcome: 4, value: None },
                FieldResult { field: 99, outcome: 99, value: None },
            ],
            revision: 2,
        }
    }

    #[test]
    fn every_field_is_printed_with_its_outcome() {
        let printed = Value::Object(to_json(&read()));
        assert_eq!(printed["fields"]["address"]["value"]["locality"], "Abu Dhabi");
        assert_eq!(printed["fields"]["email"], json!({ "outcome": "denied" }));
        assert_eq!(printed["fields"]["unknown"], json!({ "outcome": "unknown" }));
        assert_eq!(printed["revision"], 2);
    }

    #[test]
    fn a_table_shows_an_address_line_by_line() {
        let value = read().fields.swap_remove(0).value.unwrap();
        assert_eq!(lines(&value_to_json(&value)), ["28th Street", "Abu Dhabi"]);
    }
}
