//! `strongroom receipt`: what proves that a record is gone. INVARIANT: verifying needs the receipt and the public key alone:
//! no server, no network, no secret; what is wrong is named, with an exit code of its own.

use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::client::{self, Connection, print, print_json};
use super::keys::unlock;
use super::serve::load;
use crate::audit::receipt::Receipt;
use crate::crypto::note::{NAME, key_text, parse_key};
use crate::domain::token::Token;
use crate::rpc::proto::ReceiptOfRequest;
use crate::rpc::proto::erasure_service_client::ErasureServiceClient;

/// Fetch, check and explain receipts of erasures
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    Get(Get),
    Verify(Verify),
    Key(Key),
}

/// Fetch the receipt of an erased record
#[derive(clap::Args)]
pub struct Get {
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Check a receipt with the vault's public key, offline
#[derive(clap::Args)]
#[command(after_long_help = VERIFY_HELP)]
pub struct Verify {
    /// The receipt [default: standard input]
    #[arg(value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The file that holds the vault's public key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Check too that the receipt is about the record of this token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Print the vault's public key, on the vault's own machine
#[derive(clap::Args)]
pub struct Key {
    /// A server's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

const HELP: &str = "\
Every erasure has a receipt, be it asked for, or a timer's: signed text that names the record by its token's digest, when
it went from the live vault, by when from every backup, which keys were destroyed, and where log and ledger tell of it.

Examples:
  strongroom receipt key --config strongroom.toml > vault.key        (once, for whoever is to verify)
  strongroom receipt get --token-file token.json > receipt.txt
  strongroom receipt verify receipt.txt --key vault.key --token-file token.json";

const VERIFY_HELP: &str = "\
Exit codes: 0 the receipt is good; 2 the key or the token cannot be read; 6 it is not: the reason is printed.
Take the key from the vault's operator, not from where the receipt came from.

Examples:
  strongroom receipt verify receipt.txt --key vault.key
  strongroom receipt verify receipt.txt --key vault.key --token-file token.json";

/// Exit code: no good receipt.
const NOT_GOOD: u8 = 6;

pub fn run(args: Args) -> Result<(), Failure> {
    match args {
        Args::Get(args) => super::client(get(args)),
        Args::Verify(args) => verify(args),
        Args::Key(args) => {
            let config = load(&args.config)?;
            print(&key_text(NAME, &unlock(&config.root, &config.keyring)?.signer().public()))
        }
    }
}

async fn get(args: Get) -> Result<(), Failure> {
    let token = client::read_token(args.token_file.as_deref())?.to_string();
    let mut vault = ErasureServiceClient::new(client::connect(&args.connection).await?);
    let receipt = client::answer(vault.receipt_of(ReceiptOfRequest { token })).await?.receipt;
    // As signed, to the byte: its last line feed is print's.
    print(receipt.strip_suffix('\n').unwrap_or(&receipt))
}

fn verify(args: Verify) -> Result<(), Failure> {
    let key = client::read_text(Some(&args.key), "a public key")?;
    let key = parse_key(&key).map_err(|error| Failure::usage(format!("{}: {error}", args.key.display())))?;
    let token = args.token_file.as_deref().map(|path| client::read_token(Some(path))).transpose()?;
    let bytes = client::read(args.receipt.as_deref(), "a receipt")?;
    let not_good = |error: &dyn std::error::Error| Failure { message: error.to_string(), code: NOT_GOOD };
    let text = std::str::from_utf8(&bytes).map_err(|error| not_good(&error))?;
    let receipt = Receipt::verify(text, &key).map_err(|error| not_good(&error))?;
    if let Some(token) = &token {
        let token = Token::parse(token).map_err(|error| Failure::usage(error.to_string()))?;
        receipt.is_of(&token).map_err(|error| not_good(&error))?;
    }
    print_json(&json!({
        "good": true,
        "token_checked": token.is_some(),
        "record": hex::encode(receipt.record.0),
        "tenant": receipt.tenant.as_str(),
        "class": receipt.class.as_str(),
        "reason": receipt.reason.as_str(),
        "online_at": receipt.online_at.to_string(),
        "in_backups_by": receipt.in_backups_by.to_string(),
        "keys": receipt.keys.iter().map(|(key, epoch)| json!({ "key": key.0, "epoch": epoch.0 })).collect::<Vec<_>>(),
        "log_entry": receipt.log_entry,
        "ledger_line": receipt.ledger_line,
    }))
}
