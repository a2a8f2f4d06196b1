//! What falls due at once while reads go on: the sweep beside a raw delete on the same kind of table, and the reads beside the same
//! reads while nothing is due. INVARIANT: slices of each take turns until everything has gone, so that every ratio is of neighbours;
//! the readers keep a pace that leaves the machine room, as they would in a shop, and it is the same in both.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::calls::Shop;
use crate::raw::{Ids, RawStore, Template};
use crate::report::{Goal, Measure, Row};
use crate::server::{Child, Role};
use crate::{Cell, tell};

pub const ROWS: &[Row] = &[
    Row { ours: Cell::DueSweep, ceiling: Cell::DueRaw, goal: Goal { rate: Some(0.8), cpu: None, p99: None } },
    Row { ours: Cell::DueSweepBeside, ceiling: Cell::DueRaw, goal: Goal { rate: Some(0.8), cpu: None, p99: None } },
    Row { ours: Cell::DueReadsBeside, ceiling: Cell::DueReads, goal: Goal { rate: None, cpu: None, p99: Some(2.0) } },
];

/// What each of 64 streams waits between two calls: some 2,000 calls a second in all.
const PAUSE: Duration = Duration::from_millis(30);

pub struct Size {
    /// What falls due at once.
    pub due: usize,
    /// What is read meanwhile, and lives on.
    living: usize,
    slice: Duration,
}

impl Size {
    pub fn chosen() -> Self {
        let given = std::env::var("STRONGROOM_DUE").ok().and_then(|due| due.parse().ok());
        if std::env::var_os("STRONGROOM_FULL").is_some_and(|full| full == "1") {
            Self { due: given.unwrap_or(1_000_000), living: 100_000, slice: Duration::from_secs(5) }
        } else {
            Self { due: given.unwrap_or(20_000), living: 10_000, slice: Duration::from_secs(1) }
        }
    }
}

/// What was measured, by slice, and in a sentence how long all of it took.
pub fn measured(folder: &Path, size: &Size, seed: u64) -> (BTreeMap<Cell, Vec<Measure>>, String) {
    tell(&format!("storing {} records that fall due at once, and {} that do not", size.due, size.living));
    let vault = Child::start(Role::Vault, &folder.join("due"));
    let mut shop = Shop::open(&vault, 1, 0, seed);
    let mut raw = RawStore::create(&folder.join("due.db"), Template::of(&vault.database()), Ids::Growing, seed);
    raw.store(size.due);
    shop.store(size.due);
    vault.pass(30 * 24);
    shop.keep(size.living);
    vault.age(30 * 24);
    tell("foretelling");
    let outlook = shop.outlook();
    assert_eq!(outlook.calls, size.due as u64 + 1, "what is due is foretold, and nothing else");
    tell("sweeping");
    let mut measures: BTreeMap<Cell, Vec<Measure>> = BTreeMap::new();
    let (mut gone, mut swept) = (0, Duration::ZERO);
    loop {
        let mut slice: Vec<(Cell, Measure)> = Vec::new();
        let alone = vault.watch_sweep(size.slice / 2);
        let quiet = shop.detokenize_paced(size.slice, PAUSE);
        let (beside, reads) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| shop.detokenize_paced(size.slice, PAUSE));
            let load = vault.sweep_for(size.slice);
            // The server's CPU is the reads' too: it says nothing of either.
            let beside = (load.calls, load.lasted, Measure::new(load, BTreeMap::new(), None));
            (beside, reading.join().unwrap())
        });
        // As many as the vault in that time, or so.
        let theirs = raw.delete(usize::try_from(alone.0.max(beside.0)).unwrap().max(1));
        gone += alone.0 + beside.0;
        swept += alone.1 + beside.1;
        tell(&format!("{gone} of {} in {:.0} s", size.due, swept.as_secs_f64()));
        // The last slice ends in its middle: what was beside the reads was not.
        let is_last = beside.1 < size.slice.mul_f64(0.9);
        slice.push((Cell::DueSweep, alone.2));
        slice.push((Cell::DueReads, Measure::new(quiet, BTreeMap::new(), None)));
        slice.push((Cell::DueSweepBeside, beside.2));
        slice.push((Cell::DueReadsBeside, Measure::new(reads, BTreeMap::new(), None)));
        slice.push((Cell::DueRaw, theirs));
        if !is_last || measures.is_empty() {
            for (cell, measure) in slice {
                measures.entry(cell).or_default().push(measure);
            }
        }
        if is_last {
            break;
        }
    }
    assert_eq!(gone, size.due as u64 + 1, "everything that was due has gone, and nothing else");
    let rate = gone as f64 / swept.as_secs_f64();
    let reads: Vec<f64> = measures.get(&Cell::DueReadsBeside).into_iter().flatten().map(Measure::rate).collect();
    let told = format!(
        "Foretelling them took {:.1} s ({:.0} a second, in pages of 256). {gone} records that fell due at once went in {:.0} s of sweeping ({rate:.0} a second), two thirds of it while {:.0} reads a \
         second went on; at that rate a million takes {:.0} s.",
        outlook.lasted.as_secs_f64(),
        outlook.calls as f64 / outlook.lasted.as_secs_f64(),
        swept.as_secs_f64(),
        reads.iter().sum::<f64>() / reads.len() as f64,
        1e6 / rate,
    );
    (measures, told)
}
