//! `strongroom approve`: the second person's word. INVARIANT: what is approved is shown in the vault's words, and approved by
//! its number, never by description.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::Failure;
use super::callers::plain_hex;
use super::client::{self, Connection, print, print_json};
use crate::rpc::proto::approval_service_client::ApprovalServiceClient;
use crate::rpc::proto::{
    Approval, ApprovalState, ApproveRequest, ListApprovalsRequest, RejectRequest, ShowApprovalRequest, Verb,
};

/// Look at what waits for a second person, and agree or refuse.
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    /// List the requests: the open ones
    List {
        /// Those that are decided, carried out or out of time as well
        #[arg(long)]
        all: bool,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show one request: what, by whom, until when
    Show(One),
    /// Agree; who asked can then give the same command again, and it is carried out
    Yes(One),
    /// Refuse, take an approval back that was not used yet, or withdraw one's own request
    No(One),
}

#[derive(clap::Args)]
pub struct One {
    /// The approval's number, as the request printed it
    #[arg(value_name = "NUMBER")]
    approval: String,
    #[command(flatten)]
    connection: Connection,
}

const HELP: &str = "\
For a key admin's, an operator's or a privacy officer's certificate, as the request allows. Nobody approves their own request,
nor that of whom they enrolled or were enrolled by. A request waits 24 hours.

Examples:
  strongroom approve list
  strongroom approve show 8f3c0a1b2c3d4e5f60718293a4b5c6d7
  strongroom approve yes 8f3c0a1b2c3d4e5f60718293a4b5c6d7";

pub async fn run(args: Args) -> Result<(), Failure> {
    let approval = match args {
        Args::List { all, json, connection } => {
            let mut vault = ApprovalServiceClient::new(client::connect(&connection).await?);
            let mut approvals = client::answer(vault.list_approvals(ListApprovalsRequest {})).await?.approvals;
            approvals.retain(|approval| all || is_waiting(approval));
            let listed = approvals.iter().map(shown);
            return if json { print_json(&listed.collect::<Vec<_>>()) } else { print(&table(&approvals)) };
        }
        Args::Show(One { approval, connection }) => {
            let mut vault = ApprovalServiceClient::new(client::connect(&connection).await?);
            client::answer(vault.show_approval(ShowApprovalRequest { approval_id: approval })).await?.approval
        }
        Args::Yes(One { approval, connection }) => {
            let mut vault = ApprovalServiceClient::new(client::connect(&connection).await?);
            client::answer(vault.approve(ApproveRequest { approval_id: approval })).await?.approval
        }
        Args::No(One { approval, connection }) => {
            let mut vault = ApprovalServiceClient::new(client::connect(&connection).await?);
            client::answer(vault.reject(RejectRequest { approval_id: approval })).await?.approval
        }
    };
    let approval = approval.ok_or_else(|| Failure::refused("the server answered without a result"))?;
    print_json(&shown(&approval))
}

fn is_waiting(approval: &Approval) -> bool {
    matches!(approval.state(), ApprovalState::Open | ApprovalState::Approved)
}

fn state(approval: &Approval) -> String {
    approval.state().as_str_name().trim_start_matches("APPROVAL_STATE_").to_lowercase()
}

fn shown(approval: &Approval) -> Value {
    let verb = Verb::try_from(approval.verb).map_or("?", |verb| verb.as_str_name());
    json!({
        "approval": plain_hex(&approval.approval_id),
        "verb": verb.trim_start_matches("VERB_").to_lowercase(),
        "about": approval.about.replace(char::is_control, "?"),
        "state": state(approval),
        "asked_by": approval.asked_by,
        "asked_at": client::shown(approval.asked_at),
        "expires_at": client::shown(approval.expires_at),
        "decided_by": Some(&approval.decided_by).filter(|by| !by.is_empty()),
        "decided_at": client::shown(approval.decided_at),
        "used_at": client::shown(approval.used_at),
        "digest": plain_hex(&approval.digest),
    })
}

fn table(approvals: &[Approval]) -> String {
    if approvals.is_empty() {
        return "Nothing waits for a second person.".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["approval", "what", "asked by", "state", "until"]);
    for approval in approvals {
        let until = client::shown(approval.expires_at).unwrap_or_default();
        let about = approval.about.replace(char::is_control, "?");
        let id = plain_hex(&approval.approval_id).to_owned();
        table.add_row([id, about, approval.asked_by.clone(), state(approval), until]);
    }
    table.to_string()
}
