//! `strongroom policy`: retention policies, before and after they are in force. INVARIANT: what a file says is judged by the very
//! code that will live by it; a token comes by standard input or file.

use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::Failure;
use super::client::{self, Connection, print, print_json};
use crate::config::{policy, policy_text};
use crate::domain::vocabulary::{Class, EventKind};
use crate::policy::retention::{Parameters, Policy, diff};
use crate::rpc::proto::propose_policy_response::Result::{Done, PendingApproval};
use crate::rpc::proto::retention_service_client::RetentionServiceClient;
use crate::rpc::proto::{ExplainRetentionRequest, PieceDue, ProposePolicyRequest, RecordState, WhyDue};

/// Read retention policies, compare them, ask why something is due, put a new one forward.
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    /// Read policy files as a start would; a mistake is named with its line
    Check(Check),
    /// Print a policy of this build, to start a file of one's own from
    Show(Show),
    /// Tell what a new policy hastens or delays against an old one
    Diff(Diff),
    /// Tell when a record and its fields are due, by which rule, and waiting for what
    Explain(Explain),
    /// Let a new policy take force at the next start; what shortens something takes a second person
    Propose(Propose),
}

const HELP: &str = "\
A FILE is the path of a policy file, or builtin:kitchenware, builtin:general, builtin:cross-border. Figures that a policy leaves
to the shop are set by --set, as [[tenant]] parameters = { years = 5 } does in the configuration.

Examples:
  strongroom policy check shop.toml
  strongroom policy check builtin:general --set years=5
  strongroom policy diff builtin:kitchenware shop.toml
  strongroom policy explain --token-file token.json";

#[derive(clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 every file is a policy; 2 one is not: the line and the reason are printed.

Examples:
  strongroom policy check shop.toml
  strongroom policy check builtin:general --set years=5")]
pub struct Check {
    /// Policy files, or policies of this build
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    #[command(flatten)]
    figures: Figures,
}

#[derive(clap::Args)]
#[command(after_long_help = "\
Example:
  strongroom policy show cross-border > shop.toml")]
pub struct Show {
    /// The policy's name: kitchenware, general or cross-border
    #[arg(value_name = "POLICY", hide_possible_values = true, value_parser = ["kitchenware", "general", "cross-border"])]
    name: String,
}

#[derive(clap::Args)]
#[command(after_long_help = "\
What is hastened goes earlier under the new policy, for the records collected from then on; those that are there keep the policy
they were collected under.

Exit codes: 0 nothing goes earlier; 2 a file is no policy; 7 something goes earlier, so that it takes two people to let it.

Examples:
  strongroom policy diff builtin:kitchenware shop.toml
  strongroom policy diff old.toml new.toml --json")]
pub struct Diff {
    /// The policy as it is
    #[arg(value_name = "FILE")]
    old: String,
    /// The policy as it shall be
    #[arg(value_name = "FILE")]
    new: String,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    figures: Figures,
}

#[derive(clap::Args)]
#[command(after_long_help = "\
For a shop's or a privacy officer's certificate. Tells dates and rules, never a value.

Examples:
  strongroom policy explain --token-file token.json
  strongroom tokenize < customer.json | strongroom policy explain")]
pub struct Explain {
    /// The record's token [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
#[command(after_long_help = "\
For a privacy officer's or a key admin's certificate. A policy that hastens something waits for the other one's word; give the same
command again afterwards. Then name the policy in the server's configuration and restart it: a server whose configuration names
a policy that nobody may let in goes on with the old one, and its status says so.

Examples:
  strongroom policy propose shop.toml
  strongroom approve yes NUMBER            # by the second person
  strongroom policy propose shop.toml      # carries it out")]
pub struct Propose {
    /// The policy file, or a policy of this build
    #[arg(value_name = "FILE")]
    file: String,
    #[command(flatten)]
    figures: Figures,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
struct Figures {
    /// The shop's own figure for a parameter of the policy, like years=5
    #[arg(long = "set", value_name = "NAME=NUMBER", value_parser = figure)]
    figures: Vec<(String, i64)>,
}

impl Figures {
    /// Those that this policy has parameters for: two policies that are compared need not have the same.
    fn of(&self, text: &str) -> Parameters {
        let has = |name: &str| text.lines().any(|line| line.split('=').next().map(str::trim) == Some(name));
        self.figures.iter().filter(|(name, _)| has(name)).cloned().collect()
    }

    fn all(&self) -> Parameters {
        self.figures.iter().cloned().collect()
    }
}

fn figure(raw: &str) -> Result<(String, i64), &'static str> {
    let parsed = raw.split_once('=').and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
    parsed.ok_or("not NAME=NUMBER, like years=5")
}

/// Exit code: something goes earlier.
const SHORTENS: u8 = 7;

pub fn run(args: Args) -> Result<(), Failure> {
    match args {
        Args::Check(check) => checked(&check),
        Args::Show(Show { name }) => {
            let builtin = Policy::BUILTIN.iter().find(|(known, _)| *known == name);
            print(builtin.map_or("", |(_, text)| text.trim_end()))
        }
        Args::Diff(files) => compared(&files),
        Args::Explain(explain) => super::client(explained(explain)),
        Args::Propose(propose) => super::client(proposed(propose)),
    }
}

fn loaded(file: &str, figures: &Parameters) -> Result<Policy, Failure> {
    policy(file, Path::new(""), figures).map_err(|reason| {
        // A file's own name is part of the reason; a missing policy's is not.
        let reason = reason.to_string();
        Failure::usage(if reason.starts_with(file) { reason } else { format!("{file}: {reason}") })
    })
}

fn checked(check: &Check) -> Result<(), Failure> {
    for file in &check.files {
        let policy = loaded(file, &check.figures.all())?;
        let classes: Vec<_> =
            Class::ALL.iter().filter(|class| policy.class(**class).is_some()).map(|class| class.as_str()).collect();
        let version = hex::encode(policy.version().0);
        print(&format!("{file}: policy {} of {}, version {version}", policy.id(), classes.join(", ")))?;
    }
    Ok(())
}

fn compared(files: &Diff) -> Result<(), Failure> {
    let one = |file: &str| {
        let text = policy_text(file, Path::new("")).map_or_else(|_| String::new(), |(_, text)| text);
        loaded(file, &files.figures.of(&text))
    };
    let changes = diff(&one(&files.old)?, &one(&files.new)?);
    let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
    if files.json {
        let listed = changes.iter().map(|change| {
            json!({ "rule": change.rule, "old": change.old, "new": change.new, "effect": change.effect.as_str() })
        });
        print_json(&listed.collect::<Vec<_>>())?;
    } else if changes.is_empty() {
        print("Nothing changes.")?;
    } else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["rule", "old", "new", "effect"]);
        for change in &changes {
            table.add_row([&change.rule, &shown(&change.old), &shown(&change.new), change.effect.as_str()]);
        }
        print(&table.to_string())?;
    }
    let hastened = changes.iter().filter(|change| change.effect.shortens()).count();
    match hastened {
        0 => Ok(()),
        _ => Err(Failure {
            message: format!("{hastened} rules end something earlier: it takes two people"),
            code: SHORTENS,
        }),
    }
}

async fn explained(args: Explain) -> Result<(), Failure> {
    let token = client::read_token(args.token_file.as_deref())?.to_string();
    let mut vault = RetentionServiceClient::new(client::connect(&args.connection).await?);
    let told = client::answer(vault.explain_retention(ExplainRetentionRequest { token })).await?;
    print_json(&json!({
        "state": match told.state() {
            RecordState::Unspecified => "unknown",
            RecordState::Live => "live",
            RecordState::Expired => "expired",
            RecordState::Erased => "erased",
        },
        "class": u8::try_from(told.class).ok().and_then(Class::from_code).map(Class::as_str),
        "stored_at": client::shown(told.stored_at),
        "policy": Some(&told.policy_id).filter(|id| !id.is_empty()),
        "policy_version": Some(&told.policy_version).filter(|version| !version.is_empty()),
        "record": told.record.as_ref().map(why),
        "pieces": told.pieces.iter().map(piece).collect::<Vec<_>>(),
        "erase_reason": Some(&told.erase_reason).filter(|reason| !reason.is_empty()),
    }))
}

fn why(why: &WhyDue) -> Value {
    let waiting = why.waiting_for.iter().map(|code| u8::try_from(*code).ok().and_then(EventKind::from_code));
    json!({
        "due": client::shown(why.due),
        "due_by": why.due_by,
        "rule": why.rule,
        "line": why.line,
        "source": why.source,
        "waiting_for": waiting.map(|kind| kind.map_or("unknown", EventKind::as_str)).collect::<Vec<_>>(),
    })
}

fn piece(piece: &PieceDue) -> Value {
    json!({ "piece": piece.piece, "over": piece.over, "why": piece.why.as_ref().map(why) })
}

async fn proposed(args: Propose) -> Result<(), Failure> {
    let policy = loaded(&args.file, &args.figures.all())?.text().to_owned();
    let mut vault = RetentionServiceClient::new(client::connect(&args.connection).await?);
    let told = client::answer(vault.propose_policy(ProposePolicyRequest { policy })).await?;
    let changes: Vec<Value> = told
        .changes
        .iter()
        .map(|change| json!({ "rule": change.rule, "old": change.old, "new": change.new, "effect": change.effect }))
        .collect();
    let result = told.result.ok_or_else(|| Failure::refused("the server answered without a result"))?;
    print_json(&match result {
        Done(allowed) => json!({ "allowed": allowed.policy_version, "changes": changes }),
        PendingApproval(pending) => json!({
            "pending_approval": pending.approval_id,
            "expires_at": client::shown(pending.expires_at),
            "changes": changes,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::retention::Effect;

    #[test]
    fn a_figure_is_a_name_and_a_number() {
        assert_eq!(figure("years=5"), Ok(("years".to_owned(), 5)));
        for bad in ["years", "years=", "years=five", "=", "5"] {
            assert!(figure(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_figure_goes_to_the_policies_that_have_its_parameter() {
        let figures = Figures { figures: vec![("years".to_owned(), 5)] };
        assert_eq!(figures.of(Policy::GENERAL), Parameters::from([("years".to_owned(), 5)]));
        assert_eq!(figures.of(Policy::KITCHENWARE), Parameters::new());
    }

    #[test]
    fn a_bad_policy_is_named_with_file_line_and_reason() {
        let failure = loaded("builtin:general", &Parameters::new()).unwrap_err();
        assert!(failure.code == 2 && failure.message.starts_with("builtin:general: line "), "{failure}");
        assert!(failure.message.contains("years has no value"));
        let failure = loaded("builtin:garden", &Parameters::new()).unwrap_err();
        assert!(failure.message.starts_with("builtin:garden: is no policy of this build"), "{failure}");
        let failure = loaded("/nowhere/shop.toml", &Parameters::new()).unwrap_err();
        assert!(failure.message.starts_with("/nowhere/shop.toml: cannot be read"), "{failure}");
    }

    #[test]
    fn every_effect_has_a_name_of_its_own() {
        let names = [Effect::Hastened, Effect::Delayed, Effect::Either, Effect::Otherwise].map(Effect::as_str);
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
    }
}
