//! `strongroom hold`: what must not be destroyed, and until when. INVARIANT: what a case is called may name people, so it comes
//! by standard input or file, as tokens do; a hold itself is named by its number.

use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::Failure;
use super::client::{self, Connection, Once, print, print_json, print_json_line};
use crate::crypto::entropy::OsEntropy;
use crate::domain::vocabulary::HoldKind;
use crate::rpc::proto::erasure_service_client::ErasureServiceClient;
use crate::rpc::proto::{Hold, LiftHoldRequest, ListHoldsRequest, PlaceHoldRequest, lift_hold_response};

/// Keep records from being destroyed, and let them go again
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    Place(Place),
    Lift(Lift),
    List(List),
}

/// Keep a record, or all of a customer's, from being destroyed or corrected
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Place {
    /// Whose word it is
    #[arg(long, value_parser = client::one_of(HoldKind::ALL, HoldKind::as_str))]
    kind: HoldKind,
    /// The record's token
    #[arg(long, value_name = "FILE", required_unless_present = "subject_file", conflicts_with = "subject_file")]
    token_file: Option<PathBuf>,
    /// With a token: every record of its customer, later ones included
    #[arg(long, requires = "token_file")]
    whole_subject: bool,
    /// Every record of the customer that the shop calls so
    #[arg(long, value_name = "FILE")]
    subject_file: Option<PathBuf>,
    /// What the court or the authority calls the case [default: standard input]
    #[arg(long, value_name = "FILE")]
    case_file: Option<PathBuf>,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    connection: Connection,
}

/// End a hold; takes two people
#[derive(clap::Args)]
#[command(after_long_help = LIFT_HELP)]
pub struct Lift {
    /// The hold's number, as `hold place` and `hold list` print it
    #[arg(value_name = "HOLD")]
    hold: String,
    #[command(flatten)]
    connection: Connection,
}

/// List the holds in force
#[derive(clap::Args)]
pub struct List {
    /// Those lifted within 90 days as well
    #[arg(long)]
    all: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const HELP: &str = "\
For a privacy officer's certificate. A hold stops destruction and correction, whoever asks and however due the record is; it
makes nothing readable: what is due stays EXPIRED. A minor's erasure waits for a court's hold alone.

Examples:
  echo '12 O 345/26' | strongroom hold place --kind court --token-file token.json
  strongroom hold place --kind dispute --subject-file customer.txt --case-file case.txt
  strongroom hold list";

const LIFT_HELP: &str = "\
Prints the number of an approval. A second person looks at it and agrees; then give the same command again. What was kept
and is due goes with the sweeper's next step.

Example:
  strongroom hold lift hold-17           (prints {\"pending_approval\": \"8f3c...\"})
  strongroom approve show 8f3c... && strongroom approve yes 8f3c...      (the second person)
  strongroom hold lift hold-17           (the first again)";

pub async fn run(args: Args) -> Result<(), Failure> {
    match args {
        Args::Place(args) => place(args).await,
        Args::Lift(args) => lift(args).await,
        Args::List(args) => list(args).await,
    }
}

async fn place(args: Place) -> Result<(), Failure> {
    let (token, subject) = client::token_or_subject(args.token_file.as_deref(), args.subject_file.as_deref())?;
    let request = PlaceHoldRequest {
        idempotency_key: args.once.key(&OsEntropy),
        token,
        subject,
        whole_subject: args.whole_subject,
        kind: i32::from(args.kind.code()),
        case_reference: client::read_text(args.case_file.as_deref(), "a case")?.to_string(),
    };
    let mut vault = ErasureServiceClient::new(client::connect(&args.connection).await?);
    let hold = client::answer(vault.place_hold(request)).await?.hold_id;
    print_json_line(&json!({ "hold": hold }))
}

async fn lift(args: Lift) -> Result<(), Failure> {
    use lift_hold_response::Result::{Done, PendingApproval};
    let mut vault = ErasureServiceClient::new(client::connect(&args.connection).await?);
    let lifted = client::answer(vault.lift_hold(LiftHoldRequest { hold_id: args.hold })).await?;
    match lifted.result.ok_or_else(|| Failure::refused("the server answered without a result"))? {
        Done(at) => print_json_line(&json!({ "lifted_at": client::shown(Some(at)) })),
        PendingApproval(pending) => print_json_line(&json!({
            "pending_approval": super::callers::plain_hex(&pending.approval_id),
            "expires_at": client::shown(pending.expires_at),
        })),
    }
}

async fn list(args: List) -> Result<(), Failure> {
    let mut vault = ErasureServiceClient::new(client::connect(&args.connection).await?);
    let mut holds: Vec<Hold> = Vec::new();
    loop {
        let after = holds.last().map(|hold| hold.hold_id.clone()).unwrap_or_default();
        let page = client::answer(vault.list_holds(ListHoldsRequest { after })).await?.holds;
        if page.is_empty() {
            break;
        }
        holds.extend(page);
    }
    holds.retain(|hold| args.all || hold.lifted_at.is_none());
    if args.json {
        return print_json(&holds.iter().map(shown).collect::<Vec<_>>());
    }
    if holds.is_empty() {
        return print("Nothing is held.");
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["hold", "kind", "case", "on", "placed by", "placed at", "lifted at"]);
    for hold in &holds {
        let on = if hold.whole_subject { "a customer" } else { "a record" };
        let at = |at| client::shown(at).unwrap_or_default();
        table.add_row([
            hold.hold_id.as_str(),
            kind(hold),
            &hold.case_reference,
            on,
            &hold.placed_by,
            &at(hold.placed_at),
            &at(hold.lifted_at),
        ]);
    }
    print(&table.to_string())
}

fn kind(hold: &Hold) -> &'static str {
    u8::try_from(hold.kind).ok().and_then(HoldKind::from_code).map_or("unknown", HoldKind::as_str)
}

fn shown(hold: &Hold) -> Value {
    json!({
        "hold": hold.hold_id,
        "kind": kind(hold),
        "case": Some(&hold.case_reference).filter(|case| !case.is_empty()),
        "whole_subject": hold.whole_subject,
        "placed_by": hold.placed_by,
        "placed_at": client::shown(hold.placed_at),
        "lifted_at": client::shown(hold.lifted_at),
    })
}
