//! Canaries in every field of every request, accepted and refused, through every RPC and every command, against the real
//! server: they are found in no file, log, error or output. With sealing switched off the same search finds what is stored.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "leaks/canaries.rs"]
mod canaries;
#[path = "leaks/commands.rs"]
mod commands;
#[path = "common/raw.rs"]
mod raw;
#[path = "leaks/requests.rs"]
mod requests;
#[path = "leaks/served.rs"]
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aho_corasick::AhoCorasick;
use canaries::Canaries;
use served::Served;
use strongroom::cli::demo::scan::Scanner;
use strongroom::domain::token::Token;

/// What is left when the story is over.
struct Evidence {
    canaries: Canaries,
    /// Places by name, with their bytes: files, database cells, outputs, errors.
    places: Vec<(String, Vec<u8>)>,
    /// Outputs that exist to tell tokens, and nothing else.
    told_tokens: Vec<(String, Vec<u8>)>,
}

/// The whole story, with a fault planted in the server or without.
fn story(fault: Option<&str>) -> Evidence {
    let mut served = Served::start(fault);
    let mut canaries = Canaries::default();
    commands::all(&mut served, &mut canaries);
    requests::all(&mut served, &mut canaries);
    let mut places = std::mem::take(&mut served.heard);
    let told_tokens = std::mem::take(&mut served.told_tokens);
    let live = files(&served.data(), "live");
    let size = |name: &str| live.iter().find(|(place, _)| place == name).map_or(0, |(_, bytes)| bytes.len());
    for name in
        ["strongroom.db", "strongroom.db-wal", "strongroom.db-shm", "erasure.ledger", "keyring", "strongroom.log"]
    {
        assert!(size(&format!("live {name}")) > 0, "{name} is missing from the search");
    }
    places.extend(live);
    let metrics = served.metrics();
    for name in [
        "strongroom_calls_total{rpc=\"TokenService/Tokenize\",role=\"shop\",code=\"OK\"}",
        "strongroom_refusals_total{role=\"carrier\",reason=\"unknown\"}",
        "strongroom_records_live",
    ] {
        assert!(String::from_utf8_lossy(&metrics).contains(name), "{name} is missing from the metrics");
    }
    places.push(("the metrics".to_owned(), metrics));
    let data = served.data();
    let (dir, printed) = served.stop();
    places.extend(printed);
    places.extend(files(&data, "stopped"));
    places.extend(cells(&data.join("strongroom.db")));
    let waiting = places.iter().filter(|(place, _)| place == "announcement.digest").count();
    assert!(waiting > 3, "the webhook's outbox is full of what went: {waiting}");
    drop(dir);
    Evidence { canaries, places, told_tokens }
}

/// Every file below `dir`.
fn files(dir: &Path, when: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, when));
        } else {
            let name = path.file_name().unwrap().to_str().unwrap();
            found.push((format!("{when} {name}"), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// Every cell of every table: a long value is split over pages in the file, and whole here.
fn cells(database: &Path) -> Vec<(String, Vec<u8>)> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let names = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let mut found = Vec::new();
    for table in names("SELECT name FROM sqlite_schema WHERE type = 'table'") {
        for column in names(&format!("SELECT name FROM pragma_table_info('{table}')")) {
            let mut statement = connection.prepare(&format!("SELECT CAST({column} AS BLOB) FROM {table}")).unwrap();
            let cells = statement.query_map([], |row| row.get::<_, Option<Vec<u8>>>(0)).unwrap();
            found.extend(cells.map(|cell| (format!("{table}.{column}"), cell.unwrap().unwrap_or_default())));
        }
    }
    assert!(found.len() > 1_000, "the database is full of rows");
    found
}

/// The values that are found anywhere, each with the places.
fn found<'a>(
    values: impl Iterator<Item = &'a String> + Clone,
    places: &[(String, Vec<u8>)],
) -> BTreeMap<&'a str, BTreeSet<String>> {
    let values: Vec<&str> = values.map(String::as_str).collect();
    let scanner = Scanner::new(values.iter().copied()).unwrap();
    assert_eq!(scanner.values().len(), values.len(), "every canary is long enough to be looked for");
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (place, bytes) in places {
        for hit in scanner.scan_bytes(bytes) {
            found.entry(values[hit.value]).or_default().insert(format!("{place} as {:?}", hit.form));
        }
    }
    found
}

#[test]
fn what_clients_send_is_found_nowhere() {
    let Evidence { canaries, places, told_tokens } = story(None);
    assert!(canaries.sent.len() > 500 && canaries.kept.len() > 40 && canaries.tokens.len() > 10);
    assert_eq!(found(canaries.sent.iter().chain(&canaries.tokens), &places), BTreeMap::new());
    assert_eq!(found(canaries.sent.iter(), &told_tokens), BTreeMap::new());
    let raw: Vec<Vec<u8>> =
        canaries.tokens.iter().filter_map(|token| Some(Token::parse(token).ok()?.as_bytes().to_vec())).collect();
    let automaton = AhoCorasick::new(&raw).unwrap();
    for (place, bytes) in places {
        assert!(!automaton.is_match(bytes.as_slice()), "a token's bytes in {place}");
    }
}

#[cfg(feature = "planted")]
#[test]
fn planted_sealing_off_is_found_for_every_value_that_is_stored() {
    let Evidence { canaries, places, .. } = story(Some("sealing-off"));
    let log = places.iter().find(|(place, _)| place == "live strongroom.log").unwrap();
    let warned = String::from_utf8_lossy(&log.1).contains("feature `planted`");
    assert!(warned, "the server is a build without planted faults: was it built again meanwhile?");
    let database: Vec<_> = places.into_iter().filter(|(place, _)| place.contains("strongroom.db")).collect();
    let found = found(canaries.kept.iter(), &database);
    let missed: Vec<_> = canaries.kept.iter().filter(|value| !found.contains_key(value.as_str())).collect();
    assert!(canaries.kept.len() > 40 && missed.is_empty(), "{missed:?}");
}

#[test]
fn no_command_takes_personal_data_tokens_or_serials_as_an_argument() {
    let mut taken = BTreeSet::new();
    commands::arguments(&[], &mut taken);
    let allowed: BTreeSet<String> = commands::ALLOWED.iter().map(|argument| (*argument).to_owned()).collect();
    assert!(taken.len() > 20, "{taken:?}");
    let taken: BTreeSet<_> = taken.difference(&allowed).collect();
    assert!(taken.is_empty(), "is none of these personal data? then allow them: {taken:?}");
}
