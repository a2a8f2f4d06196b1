//! `strongroom erase`: destroys one record, or all of a customer's, for good. INVARIANT: tokens and references come by standard
//! input or file, the reason is stated, and every receipt that is asked for is on disk before the command succeeds.

use std::path::{Path, PathBuf};

use indicatif::{HumanCount, ProgressBar};
use serde_json::{Value, json};

use super::Failure;
use super::client::{self, Connection, Once};
use super::mint::write_private;
use super::serve::failed;
use crate::crypto::entropy::OsEntropy;
use crate::domain::vocabulary::{Class, EraseReason, HoldKind};
use crate::rpc::proto::erase_subject_response::News;
use crate::rpc::proto::erasure_service_client::ErasureServiceClient;
use crate::rpc::proto::token_service_client::TokenServiceClient;
use crate::rpc::proto::{EraseRequest, EraseSubjectRequest, KeepReason, KeptRecord};

/// What a caller may state; the others are the retention timer's.
const REASONS: &[EraseReason] =
    &[EraseReason::SubjectRequest, EraseReason::Cancellation, EraseReason::Minor, EraseReason::Controller];

const EXAMPLES: &str = "\
There is no way back: the record's key is destroyed before the answer. Erasing an erased record answers the same. A record
that a legal hold is on is not erased; the refusal names the hold's kind.

With --subject, or --subject-file, everything of the customer goes: every record and the customer itself. What must stay for
now is listed with its reason (a hold, an open after-sales case or refund) and goes by itself when that is over. Cut off or
killed, the erasure goes on without you; the same command with the same --idempotency-key answers the whole list.

Examples:
  strongroom erase --token-file token.json --reason subject_request
  strongroom erase --subject --token-file token.json --reason cancellation --receipts receipts/
  strongroom erase --subject-file customer.txt --reason minor --receipts receipts/";

/// Destroys a record, or all of a customer's, now and for good
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE", conflicts_with = "subject_file")]
    token_file: Option<PathBuf>,
    /// Everything of the customer that the record belongs to
    #[arg(long, conflicts_with = "subject_file")]
    subject: bool,
    /// Everything of the customer that the shop calls so
    #[arg(long, value_name = "FILE")]
    subject_file: Option<PathBuf>,
    /// Why: the data subject asked, the account or order was cancelled, a minor's data, or the shop decided
    #[arg(long, value_parser = client::one_of(REASONS, EraseReason::as_str))]
    reason: EraseReason,
    /// Where receipts go, one file each, named by the record's digest
    #[arg(long, value_name = "FOLDER")]
    receipts: Option<PathBuf>,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    if let Some(folder) = &args.receipts {
        std::fs::create_dir_all(folder).map_err(|error| Failure::io(folder, &error))?;
    }
    let idempotency_key = args.once.key(&OsEntropy);
    let reason = i32::from(args.reason.code());
    if args.subject || args.subject_file.is_some() {
        let (token, subject) = match &args.subject_file {
            Some(path) => client::token_or_subject(None, Some(path))?,
            None => (client::read_token(args.token_file.as_deref())?.to_string(), String::new()),
        };
        return whole_subject(&args, EraseSubjectRequest { idempotency_key, token, subject, reason }).await;
    }
    let token = client::read_token(args.token_file.as_deref())?.to_string();
    let mut vault = TokenServiceClient::new(client::connect(&args.connection).await?);
    let erased = client::answer(vault.erase(EraseRequest { idempotency_key, token, reason })).await?;
    let file = keep(args.receipts.as_deref(), &erased.receipt)?;
    client::print_json_line(&json!({ "erased_at": client::shown(erased.erased_at), "receipt": file }))
}

async fn whole_subject(args: &Args, request: EraseSubjectRequest) -> Result<(), Failure> {
    let mut vault = ErasureServiceClient::new(client::connect(&args.connection).await?);
    let mut stream = client::answer(vault.erase_subject(request)).await?;
    // Shown where somebody watches; tells counts alone.
    let bar = ProgressBar::new_spinner();
    let (mut erased, mut receipts, mut kept) = (0, 0, Vec::new());
    while let Some(message) = client::next(&mut stream, "the erasure goes on without us").await? {
        match message.news {
            Some(News::Destroyed(count)) => {
                erased += count;
                bar.set_message(format!("{} records destroyed", HumanCount(erased)));
                bar.tick();
            }
            Some(News::Receipt(receipt)) => {
                keep(args.receipts.as_deref(), &receipt)?;
                receipts += 1;
            }
            Some(News::Kept(record)) => kept.push(shown(&record)),
            None => return Err(Failure::refused("the server answered without a result")),
        }
    }
    bar.finish_and_clear();
    client::print_json(&json!({ "erased": receipts, "kept": kept }))
}

/// Files a receipt under its record's digest, as its second line has it.
fn keep(folder: Option<&Path>, receipt: &str) -> Result<Option<String>, Failure> {
    let Some(folder) = folder.filter(|_| !receipt.is_empty()) else { return Ok(None) };
    let digest = receipt.lines().nth(1).and_then(|line| line.strip_prefix("record "));
    let digest = digest.filter(|digest| digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let digest = digest.ok_or_else(|| Failure::refused("the server's receipt names no record"))?;
    let path = folder.join(format!("{digest}.receipt"));
    let written = write_private(&path, receipt.as_bytes());
    written.map_err(|error| failed(&format!("cannot write the receipt {}", path.display()), &error))?;
    Ok(Some(path.display().to_string()))
}

fn shown(record: &KeptRecord) -> Value {
    let name = record.reason().as_str_name().trim_start_matches("KEEP_REASON_").to_lowercase();
    let hold = u8::try_from(record.hold).ok().and_then(HoldKind::from_code).map(HoldKind::as_str);
    json!({
        "token": Some(&record.token).filter(|token| !token.is_empty()),
        "class": u8::try_from(record.class).ok().and_then(Class::from_code).map(Class::as_str),
        "reason": name,
        "hold": hold.filter(|_| record.reason() == KeepReason::Held),
        "waiting_for": record.waiting_for,
        "until": client::shown(record.until),
    })
}
