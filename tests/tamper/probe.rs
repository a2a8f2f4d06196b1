//! Everything the vault can be asked about the story, and what it then says.

use std::collections::BTreeMap;
use std::path::Path;

use strongroom::audit::entry::{Action, Actor, Entry, RefusalCode, Verdict};
use strongroom::audit::verify::unpack;
use strongroom::domain::field::{CustomerReference, Email};
use strongroom::domain::id::HoldId;
use strongroom::domain::vocabulary::{Class, EraseReason, EventKind, Field, Purpose};
use strongroom::store::{LogVerdict, StorePaths, verify_log};
use strongroom::vault::{Description, Detokenize, Enrolled, Error, Find, Released, Sought, Vault};

use super::story::{self, Answer, Step, Story, call, numbered};

/// The answer to one question.
#[derive(Debug)]
pub struct Said {
    pub question: String,
    /// The step has been taken in the story already.
    pub replay: bool,
    /// The number the question goes by in the log; 0 for what is no request.
    pub request: u64,
    pub answer: Result<String, Error>,
}

/// All that came of opening a vault and asking it everything.
pub enum Outcome {
    /// It did not start.
    Refused,
    Served {
        said: Vec<Said>,
        /// What the log tells of each request, and of the vault itself under 0.
        log: BTreeMap<u64, Vec<Entry>>,
        verdict: Result<(), String>,
    },
}

/// Opens a vault on the files, asks everything, closes it and verifies the log.
pub fn question(story: &Story, paths: &StorePaths) -> Outcome {
    let runtime = story::runtime();
    let Ok(vault) = story.reopen(&runtime, paths) else { return Outcome::Refused };
    let said = runtime.block_on(everything(story, &vault));
    drop(vault);
    let log = logged(&paths.database);
    let verdict = match verify_log(&paths.database, Some(&story.keyring), None) {
        Ok(LogVerdict::Sound(_)) => Ok(()),
        Ok(LogVerdict::Flawed(flaw)) => Err(flaw.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Outcome::Served { said, log, verdict }
}

/// Reads first, then replays, then what is new: no answer depends on whether an earlier question was refused.
async fn everything(story: &Story, vault: &Vault) -> Vec<Said> {
    let mut all = Vec::new();
    let mut number = 1_000;
    let mut next = |question: String, replay| {
        number += 1;
        Said { question, replay, request: number, answer: Ok(String::new()) }
    };
    for (record, shop) in story.known.records() {
        for purpose in [Purpose::SelfService, Purpose::Fulfilment] {
            let mut said = next(format!("{purpose} of {record}"), false);
            let ask = Detokenize { token: story.known.token(record), fields: Field::ALL.to_vec(), purpose };
            said.answer = vault.detokenize(&call(shop, said.request), &ask).await.map(|answer| told(&answer));
            all.push(said);
        }
        let mut said = next(format!("describe {record}"), false);
        said.answer = vault.describe(&call(shop, said.request), &story.known.token(record)).await.map(described);
        all.push(said);
    }
    for record in ["account", "account-2"] {
        let mut said = next(format!("find {record}"), false);
        let by = Sought::Email(Email::parse("email", format!("{record}@example.org")).unwrap());
        said.answer = found(story, vault, &said, Class::Account, by).await;
        all.push(said);
    }
    for customer in ["anna", "hans"] {
        let mut said = next(format!("find {customer}'s orders"), false);
        let by = Sought::CustomerReference(CustomerReference::parse("by", format!("{customer}@shop.example")).unwrap());
        said.answer = found(story, vault, &said, Class::Order, by).await;
        all.push(said);
    }
    for serial in story.known.serials() {
        let mut said = next(format!("deliver {serial}"), false);
        said.answer = text(story, vault, &Step::Read(serial), &said).await;
        all.push(said);
    }
    for done in story.done.iter().filter(|done| !matches!(done.step, Step::Read(_))) {
        let mut said = next(format!("again {:?}", done.step), true);
        let answer = story.ask(vault, &done.step, done.at, said.request).await;
        said.answer = answer.map(|answer| match answer {
            Answer::Token(token) if token == *story.known.token(story::named(&done.step)).as_bytes() => {
                "the same token".to_owned()
            }
            other => spoken(other),
        });
        all.push(said);
    }
    for step in new_steps() {
        let mut said = next(format!("{step:?}"), false);
        said.answer = text(story, vault, &step, &said).await;
        all.push(said);
    }
    let mut said = next("sweep".to_owned(), false);
    said.request = 0;
    said.answer = vault.sweep().await.map(|swept| format!("{} destroyed", swept.destroyed));
    all.push(said);
    // After the sweeper, which has closed the month.
    for tenant in ["kitchenware", "garden"] {
        let mut said = next(format!("statistics of {tenant}"), false);
        let operator = format!("tenant/{tenant}/operator/oncall");
        let published = vault.published(&call(&operator, said.request), 2025 * 12, 2028 * 12).await;
        said.answer = published.map(|months| format!("{months:?}"));
        all.push(said);
    }
    let mut said = next("holds".to_owned(), false);
    let holds = vault.list_holds(&call(story::OFFICER, said.request), HoldId(i64::MIN)).await;
    said.answer = holds.map(|holds| holds.iter().map(|hold| format!("{:?} {:?}", hold.row.kind, hold.case)).collect());
    all.push(said);
    let mut said = next("callers".to_owned(), false);
    let callers = vault.list_callers(&call(story::ADMIN, said.request)).await;
    let shown = |callers: Vec<Enrolled>| callers.iter().map(|one| format!("{:?}", one.enrolment)).collect::<String>();
    said.answer = callers.map(shown);
    all.push(said);
    for id in &story.approvals {
        let mut said = next(format!("approval {id}"), false);
        let approval = vault.show_approval(&call(story::OPERATOR, said.request), *id).await;
        said.answer = approval.map(|approval| format!("{approval:?}"));
        all.push(said);
    }
    let mut said = next("status".to_owned(), false);
    let status = vault.status(&call("tenant/kitchenware/operator/oncall", said.request)).await;
    said.answer = status.map(|_| "a status".to_owned());
    all.push(said);
    all
}

/// What nobody has asked for yet.
fn new_steps() -> Vec<Step> {
    vec![
        Step::Order("new-1", "anna", "DE"),
        Step::Order("new-2", "somebody", "DE"),
        Step::Grant("plain-1", "SW-0101", 3),
        Step::Event("plain-1", EventKind::Dispatched, 0),
        Step::Event("told-2", EventKind::RefundSettled, 0),
        Step::Event("due-1", EventKind::RefundOpened, 0),
        Step::Confirm("SW-0001"),
        Step::Revoke("PA-0002"),
        Step::Revoke("SW-0003"),
        Step::Revoke("SW-0005"),
        Step::Correct("told-1"),
        Step::Erase("plain-2", EraseReason::Controller),
    ]
}

async fn text(story: &Story, vault: &Vault, step: &Step, said: &Said) -> Result<String, Error> {
    story.ask(vault, step, story.end, said.request).await.map(spoken)
}

/// The names of the records found.
async fn found(story: &Story, vault: &Vault, said: &Said, class: Class, by: Sought) -> Result<String, Error> {
    let ask = Find { purpose: Purpose::SelfService, class, by, page_size: 10, page_token: Vec::new() };
    let found = vault.find_tokens(&call(story::SHOP, said.request), &ask).await?;
    let name = |token: &[u8; 20]| {
        story
            .known
            .records()
            .find(|(record, _)| story.known.token(record).as_bytes() == token)
            .map(|(record, _)| record)
    };
    Ok(format!("{:?}", found.tokens.iter().map(|token| name(token.as_bytes())).collect::<Vec<_>>()))
}

fn spoken(answer: Answer) -> String {
    match answer {
        // Random, or a number that depends on what else was stored.
        Answer::Token(_) => "a new token".to_owned(),
        Answer::Grant(_) => "a grant".to_owned(),
        Answer::Text(text) => text,
    }
}

fn told(answer: &strongroom::vault::Detokenized) -> String {
    let fields = answer.fields.iter().map(|one| {
        let value = match &one.value {
            None => String::new(),
            Some(Released::Whole(value)) => String::from_utf8_lossy(&value.to_bytes()).into_owned(),
            Some(Released::Masked(value)) => value.to_string(),
        };
        format!("{} {} {value}", one.field, one.outcome)
    });
    format!("{:?}: {}", answer.revision, fields.collect::<Vec<_>>().join(", "))
}

fn described(description: Description) -> String {
    match description {
        Description::Erased(reason) => format!("erased {reason}"),
        Description::Kept { state, class, revision, stored_at, due, due_by, fields, policy_version, held_by } => {
            format!("{state:?} {class} {revision} {stored_at} {due} {due_by} {fields:?} {policy_version:?} {held_by:?}")
        }
    }
}

/// The log's entries by request, read from the rows themselves: some may have been spoiled.
fn logged(database: &Path) -> BTreeMap<u64, Vec<Entry>> {
    let mut log: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection.prepare("SELECT entries FROM audit_batch").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        for entry in row.get_ref(0).unwrap().as_blob().ok().and_then(unpack).unwrap_or_default() {
            let low = entry.request.0.last_chunk().map_or(0, |low| u64::from_be_bytes(*low));
            let number = if entry.request == numbered(low) { low } else { 0 };
            log.entry(number).or_default().push(entry);
        }
    }
    log
}

/// What may come of a change beside a refusal that is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exempt {
    Nothing,
    /// The log may fail its verification.
    Log,
    /// Replays may be taken for new requests.
    Replays,
    /// A count may be missing from the statistics.
    Statistics,
    /// A hold may be missing from the list of them.
    Holds,
    /// A record that no subject leads to any more may be missing among those found, and its erasures and holds; whoever has its token is told.
    Finding,
    /// The vault may say that it cannot answer.
    Unavailable,
}

/// Why the outcome over spoiled files is not acceptable, beside what the whole ones say.
pub fn complaints(whole: &[Said], outcome: &Outcome, exempt: Exempt) -> Vec<String> {
    let Outcome::Served { said, log, verdict } = outcome else { return Vec::new() };
    let mut found = Vec::new();
    for (said, whole) in said.iter().zip(whole) {
        assert_eq!(said.question, whole.question);
        let statistics = said.question.starts_with("statistics");
        let holds = said.question == "holds";
        if (said.replay || holds) && exempt == Exempt::Replays
            || statistics && exempt == Exempt::Statistics
            || holds && exempt == Exempt::Holds
        {
            continue;
        }
        if (said.question.starts_with("find ") || said.replay || holds) && exempt == Exempt::Finding {
            continue;
        }
        match (&said.answer, &whole.answer) {
            (Ok(now), Ok(before)) if now == before => {}
            // What cannot be judged is not destroyed, and whoever looks is told.
            (Ok(now), Ok(before)) if said.question == "sweep" && now < before => {
                if !log.values().flatten().any(tells_of_tampering) {
                    found.push("sweep: less was destroyed, and nobody was told".to_owned());
                }
            }
            (Ok(now), before) => found.push(format!("{}: {now:?} instead of {before:?}", said.question)),
            (Err(now), Err(before)) if now.to_string() == before.to_string() => {}
            (Err(Error::Unavailable(_)), _) if exempt == Exempt::Unavailable => {}
            (Err(now), _) => found.extend(untold(said, now, log)),
        }
    }
    match verdict {
        Err(why) if exempt != Exempt::Log => found.push(format!("the log does not verify: {why}")),
        _ => {}
    }
    found
}

fn untold(said: &Said, error: &Error, log: &BTreeMap<u64, Vec<Entry>>) -> Option<String> {
    let entries = log.get(&said.request).map_or(&[][..], Vec::as_slice);
    let told = match error {
        Error::Tampered { .. } => entries.iter().any(tells_of_tampering),
        _ => entries.iter().any(|entry| matches!(entry.verdict, Verdict::Refused(_))),
    };
    let logged: Vec<_> = entries.iter().rev().take(4).map(|entry| (entry.action, entry.verdict)).collect();
    (!told).then(|| format!("{}: {error:?}, and the log ends with {logged:?}", said.question))
}

fn tells_of_tampering(entry: &Entry) -> bool {
    entry.action == Action::Tamper && entry.verdict == Verdict::Refused(RefusalCode::Tampered)
}

/// Whether anyone could tell the outcome from that over the whole files.
pub fn noticed(whole: &[Said], outcome: &Outcome) -> bool {
    let Outcome::Served { said, verdict, log } = outcome else { return true };
    let shown = |said: &Said| format!("{:?}", said.answer.as_ref().map_err(ToString::to_string));
    let vault_told = log
        .get(&0)
        .is_some_and(|entries| entries.iter().any(|entry| entry.actor == Actor::Vault && tells_of_tampering(entry)));
    verdict.is_err() || vault_told || said.iter().zip(whole).any(|(said, whole)| shown(said) != shown(whole))
}
