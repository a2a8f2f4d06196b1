//! Whoever can write the vault's files gains nothing by it: an altered, moved or dropped piece of the database, the audit log
//! or the erasure ledger is refused and told of, and never answered as data.
//!
//! `STRONGROOM_FULL=1` alters every cell in every way and swaps every pair of rows; without it a sample does, which
//! covers every column and replays by `STRONGROOM_SEED`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "tamper/cells.rs"]
mod cells;
#[path = "tamper/files.rs"]
mod files;
#[path = "tamper/probe.rs"]
mod probe;
#[path = "tamper/story.rs"]
mod story;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cells::{Change, Dice, Table, alterations, swaps, tables};
use probe::{Exempt, Outcome, Said, complaints, noticed, question};
use rusqlite::Connection;
use story::Story;
use strongroom::crypto::entropy::{OsEntropy, array};

/// Places where nobody need notice that something was altered; whatever is answered is right all the same.
const NEED_NOT_BE_NOTICED: &[&str] = &[
    // Where in the file a key stands; which key it is, is its id.
    "dek.place",
    // The order in which keys are looked at to be forgotten.
    "idempotency.id",
    // A key that is not found is a new one: what it led to is done twice, as after the key's own time.
    "idempotency.digest",
    // A count that is not found is a count that was deleted; so is a month.
    "tally.tenant",
    "tally.month",
    "month.tenant",
    // So is a number that the store remembers; the frontier's absence is noticed at the start.
    "meta.key",
    // The order in which a value's records are listed, and what a rewrap goes by, which opens the record's own field.
    "index_tag.id",
    "index_tag.field",
    "index_tag.epoch",
    // When the schema was made: for people.
    "refinery_schema_history.applied_on",
];

/// Alters these columns alone, in every way: `record.due tombstone.until`.
const PLACES: &str = "STRONGROOM_TAMPER_PLACES";

fn full() -> bool {
    std::env::var_os("STRONGROOM_FULL").is_some()
}

fn dice() -> Dice {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_be_bytes(array(&OsEntropy)));
    println!("replay with STRONGROOM_SEED={seed}");
    Dice::new(seed)
}

/// The story with its tables and with what a vault over the untouched files says.
struct Whole {
    story: Story,
    tables: Vec<Table>,
    said: Vec<Said>,
    closed: BTreeSet<(String, i64)>,
}

impl Whole {
    fn new() -> Self {
        let story = Story::tell();
        let tables = tables(&story.paths().database);
        let Outcome::Served { said, .. } = question(&story, &story.copy().paths) else {
            panic!("the story does not open")
        };
        let closed = never_opened(&story);
        Self { story, tables, said, closed }
    }

    /// Makes each change in a copy of its own and answers what is wrong with what followed.
    fn try_all(&self, changes: &[Change]) -> Vec<String> {
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some(change) = changes.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let wrong = self.try_one(change);
                        found.lock().unwrap().extend(
                            wrong.map(|what| format!("{}: {what}\n    {change:?}", change.place(&self.tables))),
                        );
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap();
        found.sort();
        found
    }

    fn try_one(&self, change: &Change) -> Option<String> {
        let copy = self.story.copy();
        if !change.apply(&self.tables, &copy.paths.database) {
            return None;
        }
        let place = change.place(&self.tables);
        let exempt = match place.split('.').next() {
            Some("audit_batch" | "audit_node" | "checkpoint") => Exempt::Log,
            _ if place == "idempotency.digest" => Exempt::Replays,
            // A receipt that its story does not find is found by its token, and refused there.
            _ if place == "tombstone.story" => Exempt::Replays,
            // So is a hold by what it is on.
            _ if place == "hold.tenant" => Exempt::Holds,
            _ if ["tally.tenant", "tally.month", "month.tenant", "month.month"].contains(&place.as_str()) => {
                Exempt::Statistics
            }
            _ if place == "record.subject" => Exempt::Finding,
            _ if place == "meta.key" => Exempt::Unavailable,
            _ => Exempt::Nothing,
        };
        // The library that keeps the schema's history panics over one that it cannot read; then there is no start either.
        let asked = || question(&self.story, &copy.paths);
        let outcome = if place.starts_with("refinery_schema_history") {
            std::panic::catch_unwind(AssertUnwindSafe(asked)).unwrap_or(Outcome::Refused)
        } else {
            asked()
        };
        let wrong = complaints(&self.said, &outcome, exempt);
        if !wrong.is_empty() {
            return Some(wrong.join("; "));
        }
        let may_pass = NEED_NOT_BE_NOTICED.contains(&place.as_str()) || self.is_never_opened(change);
        (!may_pass && !noticed(&self.said, &outcome)).then(|| "nothing noticed it".to_owned())
    }

    /// Keys and values that no question leads to: those of records that are due, and of a grant that is used up.
    fn is_never_opened(&self, change: &Change) -> bool {
        let (table, rows) = change.rows();
        let table = &self.tables[table];
        let column = match table.name.as_str() {
            "sealed" => "record",
            "dek" => "id",
            _ => return false,
        };
        rows.into_iter().all(|row| self.closed.contains(&(table.name.clone(), table.integer(row, column))))
    }
}

/// The sealed values and keys of due records, and the keys of grants that are used up.
fn never_opened(story: &Story) -> BTreeSet<(String, i64)> {
    let connection = Connection::open(story.paths().database).unwrap();
    let text = "SELECT 'sealed', id FROM record WHERE due <= ?1 UNION SELECT 'dek', dek FROM record WHERE due <= ?1 \
                UNION SELECT 'dek', dek FROM shipment_grant WHERE reads >= read_limit";
    let mut statement = connection.prepare(text).unwrap();
    statement.query_map([story.end.0], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

fn must_be_empty(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} of the changes were not met:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_story_holds_every_kind_of_row_and_an_untouched_copy_answers_everything() {
    let whole = Whole::new();
    // No question leads to a webhook's outbox: `tests/webhooks.rs` alters every column of it. What was told beforehand is an index.
    let elsewhere = ["announcement", "due_told"];
    for table in whole.tables.iter().filter(|table| !elsewhere.contains(&table.name.as_str())) {
        let least =
            if ["refinery_schema_history", "policy", "audit_node"].contains(&table.name.as_str()) { 1 } else { 2 };
        assert!(table.rows.len() >= least, "{} has {} rows", table.name, table.rows.len());
    }
    let answered = whole.said.iter().filter(|said| said.answer.is_ok()).count();
    assert!(answered * 4 > whole.said.len() * 3, "{:#?}", whole.said);
    let outcome = question(&whole.story, &whole.story.copy().paths);
    must_be_empty(&complaints(&whole.said, &outcome, Exempt::Nothing));
    assert!(!noticed(&whole.said, &outcome));
}

#[test]
fn an_altered_value_is_refused_and_audited_whichever_the_column() {
    let (whole, dice) = (Whole::new(), dice());
    let only = std::env::var(PLACES).ok();
    let mut changes = Vec::new();
    for (number, table) in whole.tables.iter().enumerate() {
        for (column, name) in table.columns.iter().enumerate() {
            let mut all: Vec<_> = (0..table.rows.len())
                .flat_map(|row| alterations(&whole.tables, (number, row, column), &dice))
                .collect();
            let count = match &only {
                Some(only) if only.split(' ').any(|place| place == format!("{}.{name}", table.name)) => all.len(),
                Some(_) => 0,
                None if full() => all.len(),
                None => 6,
            };
            changes.extend(dice.keep(&mut all, count));
        }
    }
    println!("{} alterations", changes.len());
    must_be_empty(&whole.try_all(&changes));
}

#[test]
fn values_that_change_places_are_refused_and_audited_whichever_the_rows() {
    let (whole, dice) = (Whole::new(), dice());
    let mut changes = Vec::new();
    for table in 0..whole.tables.len() {
        let mut all = swaps(&whole.tables, table);
        let count = if full() { all.len() } else { 2 * whole.tables[table].columns.len() };
        changes.extend(dice.keep(&mut all, count));
    }
    println!("{} swaps", changes.len());
    must_be_empty(&whole.try_all(&changes));
}

/// The test above, run again by a vault that does not check its MACs, must find what then passes.
#[cfg(feature = "planted")]
#[test]
fn planted_macs_that_nobody_checks_are_found() {
    let places = "record.facts record.due shipment_grant.reads tombstone.reason";
    let run = |fault: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "an_altered_value_is_refused_and_audited_whichever_the_column"]);
        let output = command.env("STRONGROOM_PLANTED_FAULT", fault).env(PLACES, places).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (sound, report) = run("none");
    assert!(sound, "{report}");
    let (sound, report) = run("mac-off");
    assert!(!sound, "{report}");
    for place in places.split(' ') {
        assert!(report.contains(&format!("{place}: ")), "{place} went unnoticed:\n{report}");
    }
}
