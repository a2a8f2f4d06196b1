//! The ceiling of a durable write: SQLite alone, with the vault's settings, schema and rows. INVARIANT: what is written has a
//! record's very columns and lengths, as the vault's own database has them, but random content and keys of the test's choice;
//! no cipher, MAC, audit or network is in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::load::{Dice, Load, STREAMS, micros, runtime};
use crate::report::Measure;
use crate::server::on_core;

/// The most records that one commit takes, as in the vault's writer.
const GROUP: usize = 512;
const BULK: usize = 4_096;
/// As the sweeper's.
const CHUNK: usize = 20;

/// The vault's own, in its words.
const SETUP: &str = "PRAGMA busy_timeout=5000; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
    PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-65536;";

/// The rows that storing one order writes, in the order of the vault's transaction. `?1` is the record.
const ROWS: &[(&str, &str)] = &[
    ("idempotency", "record = ?1"),
    ("subject", "id = (SELECT subject FROM record WHERE id = ?1)"),
    ("dek", "id = (SELECT dek FROM subject WHERE id = (SELECT subject FROM record WHERE id = ?1))"),
    ("record", "id = ?1"),
    ("dek", "record = ?1"),
    ("sealed", "record = ?1"),
];

/// Columns whose numbers name rows.
const KEYS: &[&str] = &["id", "record", "subject", "dek"];

/// How the numbers of rows are chosen.
#[derive(Clone, Copy)]
pub enum Ids {
    Random,
    Growing,
}

/// What one order looks like in the database.
pub struct Template {
    schema: Vec<String>,
    inserts: Vec<Insert>,
    keys: usize,
}

struct Insert {
    text: String,
    columns: Vec<Column>,
}

enum Column {
    /// One of the order's keys, by its place among them.
    Key(usize),
    Random(usize),
    /// Grows from order to order, from this on: retention ends in the order of arrival.
    Due(i64),
    Same(Value),
}

/// The values of an order's inserts.
type Order = Vec<Vec<Value>>;

impl Template {
    /// Of the newest record of a vault that is being served.
    pub fn of(database: &Path) -> Arc<Self> {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let tables = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' \
                      AND name NOT LIKE 'refinery_%' ORDER BY type = 'index'";
        let mut statement = connection.prepare(tables).unwrap();
        let schema = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let record: i64 = connection.query_row("SELECT MAX(id) FROM record", [], |row| row.get(0)).unwrap();
        let mut keys = BTreeMap::new();
        let inserts = ROWS.iter().flat_map(|(table, which)| inserts(&connection, table, which, record, &mut keys));
        Arc::new(Self { schema, inserts: inserts.collect(), keys: keys.len() })
    }

    /// Another order of the same shape.
    fn order(&self, ids: Ids, n: u64, dice: &mut Dice) -> Order {
        let key = |place: usize, dice: &mut Dice| match ids {
            Ids::Random => (dice.roll() >> 1).cast_signed(),
            Ids::Growing => (n * self.keys as u64 + place as u64).cast_signed(),
        };
        let keys: Vec<i64> = (0..self.keys).map(|place| key(place, dice)).collect();
        let mut value = |column: &Column| match column {
            Column::Key(place) => Value::Integer(*keys.get(*place).unwrap()),
            Column::Random(length) => Value::Blob(dice.bytes(*length)),
            Column::Due(first) => Value::Integer(first + n.cast_signed()),
            Column::Same(value) => value.clone(),
        };
        self.inserts.iter().map(|insert| insert.columns.iter().map(&mut value).collect()).collect()
    }

    fn insert(&self, connection: &Connection, order: &Order) {
        for (insert, values) in self.inserts.iter().zip(order) {
            connection.prepare_cached(&insert.text).unwrap().execute(params_from_iter(values)).unwrap();
        }
    }
}

/// What is inserted of a row: a key's place and epoch make themselves.
fn columns_of(table: &str) -> &'static str {
    if table == "dek" { "id, record, sealed_under, wrapped" } else { "*" }
}

fn inserts(
    connection: &Connection,
    table: &str,
    which: &str,
    record: i64,
    keys: &mut BTreeMap<(bool, i64), usize>,
) -> Vec<Insert> {
    let mut statement =
        connection.prepare(&format!("SELECT {} FROM {table} WHERE {which}", columns_of(table))).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([record]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let columns = names.iter().enumerate().map(|(at, name)| match row.get(at).unwrap() {
            // The vault's numbers are of one sequence; those of the idempotency table are SQLite's.
            Value::Integer(number) if number != 0 && KEYS.contains(&name.as_str()) => {
                let place = keys.len();
                Column::Key(*keys.entry((table == "idempotency" && name == "id", number)).or_insert(place))
            }
            Value::Integer(due) if name == "due" => Column::Due(due),
            Value::Blob(bytes) => Column::Random(bytes.len()),
            value => Column::Same(value),
        });
        let columns: Vec<Column> = columns.collect();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        let text = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
        found.push(Insert { text, columns });
    }
    found
}

pub struct RawStore {
    connection: Connection,
    template: Arc<Template>,
    ids: Ids,
    /// Orders so far.
    stored: u64,
    /// How often all of them were rewritten.
    rewritten: i64,
    dice: Dice,
}

impl RawStore {
    pub fn create(path: &Path, template: Arc<Template>, ids: Ids, seed: u64) -> Self {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(SETUP).unwrap();
        connection.set_prepared_statement_cache_capacity(64);
        for text in &template.schema {
            connection.execute_batch(text).unwrap();
        }
        Self { connection, template, ids, stored: 1, rewritten: 1, dice: Dice(seed) }
    }

    /// Stores so many orders, before any clock starts.
    pub fn store(&mut self, count: usize) {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..count {
            let order = self.template.order(self.ids, self.stored, &mut self.dice);
            self.template.insert(&self.connection, &order);
            self.stored += 1;
        }
        self.connection.execute_batch("COMMIT").unwrap();
    }

    /// One writer thread commits whatever 64 waiting callers have queued.
    pub fn group_commits(&mut self, length: Duration) -> Measure {
        let next = Arc::new(AtomicU64::new(self.stored));
        let (queue, jobs) = sync_channel(STREAMS);
        let callers: Vec<Caller> = (0..STREAMS)
            .map(|_| Caller {
                template: Arc::clone(&self.template),
                ids: self.ids,
                next: Arc::clone(&next),
                dice: Dice(self.dice.roll()),
                queue: queue.clone(),
            })
            .collect();
        drop(queue);
        let (connection, template) = (&mut self.connection, &self.template);
        let (load, written) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || write_groups(connection, template, &jobs));
            let load = runtime().block_on(async {
                let started = Instant::now();
                let loops: Vec<_> =
                    callers.into_iter().map(|caller| tokio::spawn(caller.until(started + length))).collect();
                let mut latencies = Vec::new();
                for one in loops {
                    latencies.extend(one.await.unwrap());
                }
                Load::of_latencies(latencies, started.elapsed())
            });
            (load, writer.join().unwrap())
        });
        self.stored = next.load(Ordering::Relaxed);
        let cpu = BTreeMap::from([("writer".to_owned(), written.nanos)]);
        Measure::new(load, cpu, Some(written.commits))
    }

    /// One caller who never waits: 4,096 orders a commit, made on another thread.
    pub fn bulk_commits(&mut self, length: Duration) -> Measure {
        let (template, ids, first) = (Arc::clone(&self.template), self.ids, self.stored);
        let (queue, orders) = sync_channel(2 * BULK);
        let mut dice = Dice(self.dice.roll());
        std::thread::spawn(move || {
            for n in first.. {
                if queue.send(template.order(ids, n, &mut dice)).is_err() {
                    return;
                }
            }
        });
        let (started, before) = (Instant::now(), own_nanos());
        let mut commits = 0;
        while started.elapsed() < length {
            self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            for order in orders.iter().take(BULK) {
                self.template.insert(&self.connection, &order);
            }
            self.connection.execute_batch("COMMIT").unwrap();
            commits += 1;
        }
        let stored = commits * BULK as u64;
        self.stored += stored;
        let load = Load { calls: stored, lasted: started.elapsed(), latencies: Vec::new() };
        Measure::new(load, BTreeMap::from([("writer".to_owned(), own_nanos() - before)]), Some(commits))
    }

    /// Deletes so many of the oldest orders with all their rows, 20 orders a commit.
    pub fn delete(&mut self, count: usize) -> Measure {
        let text = "SELECT record.id, subject.id, subject.dek FROM record JOIN subject ON subject.id = record.subject \
                    ORDER BY due LIMIT ?1";
        let oldest: Vec<[i64; 3]> = {
            let mut statement = self.connection.prepare(text).unwrap();
            let rows = statement.query_map([count], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let run = |text: &str, key: i64| self.connection.prepare_cached(text).unwrap().execute([key]).unwrap();
        let (started, before) = (Instant::now(), own_nanos());
        for chunk in oldest.chunks(CHUNK) {
            self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            for [record, subject, subject_key] in chunk {
                run("DELETE FROM dek WHERE record = ?1", *record);
                run("DELETE FROM sealed WHERE record = ?1", *record);
                run("DELETE FROM record WHERE id = ?1", *record);
                run("DELETE FROM dek WHERE id = ?1", *subject_key);
                run("DELETE FROM subject WHERE id = ?1", *subject);
            }
            self.connection.execute_batch("COMMIT").unwrap();
        }
        let load = Load { calls: oldest.len() as u64, lasted: started.elapsed(), latencies: Vec::new() };
        let cpu = BTreeMap::from([("writer".to_owned(), own_nanos() - before)]);
        Measure::new(load, cpu, Some(oldest.len().div_ceil(CHUNK) as u64))
    }
}

/// The rewrite of a rewrap: every key, and every stamp with its tag, in the order of the rows.
const REWRITES: &[(&str, &str)] = &[
    ("SELECT id FROM dek ORDER BY id", "UPDATE dek SET sealed_under = ?1 + 16777216, wrapped = ?2 WHERE id = ?3"),
    ("SELECT id FROM record ORDER BY id", "UPDATE record SET epoch = ?1, mac = substr(?2, 1, 16) WHERE id = ?3"),
    (
        "SELECT id FROM subject ORDER BY id",
        "UPDATE subject SET epoch = ?1, mac = substr(?2, 1, 16), tag = substr(?2, 17, 16) WHERE id = ?3",
    ),
];
/// A wrapped key's length.
const WRAPPED: usize = 73;

impl RawStore {
    /// Rewrites every row that a rewrap would, 4,096 a commit, with bytes made beforehand.
    pub fn rewrite(&mut self) -> Measure {
        self.rewritten += 1;
        let mut all = Vec::new();
        for (select, update) in REWRITES {
            let mut statement = self.connection.prepare(select).unwrap();
            let ids = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap().map(Result::unwrap);
            let rows: Vec<_> = ids.map(|id| (id, self.dice.bytes(WRAPPED))).collect();
            all.push((*update, rows));
        }
        let count: usize = all.iter().map(|(_, rows)| rows.len()).sum();
        let (started, before, mut commits) = (Instant::now(), own_nanos(), 0);
        for (update, rows) in &all {
            for chunk in rows.chunks(BULK) {
                self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                for (id, bytes) in chunk {
                    let values = rusqlite::params![self.rewritten, bytes, id];
                    self.connection.prepare_cached(update).unwrap().execute(values).unwrap();
                }
                self.connection.execute_batch("COMMIT").unwrap();
                commits += 1;
            }
        }
        let load = Load { calls: count as u64, lasted: started.elapsed(), latencies: Vec::new() };
        Measure::new(load, BTreeMap::from([("writer".to_owned(), own_nanos() - before)]), Some(commits))
    }
}

/// What the disk takes to make 4 KiB durable.
pub fn flushes(path: &Path, length: Duration) -> Measure {
    let mut file = File::create(path).unwrap();
    let started = Instant::now();
    let (mut latencies, mut now) = (Vec::new(), started);
    while started.elapsed() < length {
        file.write_all(&[7; 4_096]).unwrap();
        file.sync_data().unwrap();
        let done = Instant::now();
        latencies.push(micros(done - now));
        now = done;
    }
    Measure::new(Load::of_latencies(latencies, started.elapsed()), BTreeMap::new(), None)
}

/// An order to be written, and who waits for it.
type Job = (Order, oneshot::Sender<()>);

struct Caller {
    template: Arc<Template>,
    ids: Ids,
    next: Arc<AtomicU64>,
    dice: Dice,
    queue: SyncSender<Job>,
}

impl Caller {
    async fn until(mut self, end: Instant) -> Vec<u32> {
        let mut latencies = Vec::new();
        let mut now = Instant::now();
        while now < end {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let order = self.template.order(self.ids, n, &mut self.dice);
            let (to, written) = oneshot::channel();
            self.queue.send((order, to)).unwrap();
            written.await.unwrap();
            let done = Instant::now();
            latencies.push(micros(done - now));
            now = done;
        }
        latencies
    }
}

struct Written {
    commits: u64,
    nanos: u64,
}

fn write_groups(connection: &mut Connection, template: &Template, jobs: &Receiver<Job>) -> Written {
    let before = own_nanos();
    let mut commits = 0;
    while let Ok(first) = jobs.recv() {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut waiting = Vec::new();
        for (order, to) in std::iter::once(first).chain(jobs.try_iter()).take(GROUP) {
            template.insert(connection, &order);
            waiting.push(to);
        }
        connection.execute_batch("COMMIT").unwrap();
        commits += 1;
        for to in waiting {
            // A caller whose time is over has gone.
            let _ = to.send(());
        }
    }
    Written { commits, nanos: own_nanos() - before }
}

/// What this thread has had of a core.
fn own_nanos() -> u64 {
    on_core("/proc/thread-self/schedstat".as_ref())
}
