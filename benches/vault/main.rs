//! The vault beside its ceilings: each operation and the bare machinery under it take turns in one run, and the table says how
//! much of the ceiling is reached. INVARIANT: a ratio is only ever taken between neighbours of one round, for absolute
//! figures of a shared machine swing by a factor of two; servers run in processes of their own, so that their CPU is theirs.
//!
//! `cargo bench` prints markdown; `cargo bench --bench vault -- detokenize` runs that row alone. With `STRONGROOM_FULL=1` the cells are
//! longer, the rounds more and the store larger; `STRONGROOM_SEED` replays the choice of records. `-- due` is a story of its own: a
//! mass of records (`STRONGROOM_DUE`, a million at full size) falls due at once while reads go on.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot go on has nothing to print")]

mod calls;
mod due;
mod echo;
mod load;
mod raw;
mod report;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use calls::Shop;
use raw::{Ids, RawStore, Template};
use report::{Goal, Measure, Row};
use server::{Child, Role};

/// What is measured in a round, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cell {
    Flush,
    Echo,
    Detokenize,
    GetDelivery,
    RawRandom,
    Tokenize,
    RawGrowing,
    RawBulk,
    TokenizeStream,
    RawDelete,
    Sweep,
    RawRewrite,
    Rewrap,
    DueRaw,
    DueSweep,
    DueSweepBeside,
    DueReads,
    DueReadsBeside,
}

const ROWS: &[Row] = &[
    Row { ours: Cell::Detokenize, ceiling: Cell::Echo, goal: Goal { rate: Some(0.5), cpu: Some(2.2), p99: Some(2.5) } },
    Row {
        ours: Cell::GetDelivery,
        ceiling: Cell::Echo,
        goal: Goal { rate: Some(0.5), cpu: Some(2.2), p99: Some(2.5) },
    },
    Row { ours: Cell::Tokenize, ceiling: Cell::RawRandom, goal: Goal { rate: Some(1.0), cpu: None, p99: Some(2.0) } },
    Row { ours: Cell::Tokenize, ceiling: Cell::RawGrowing, goal: Goal { rate: None, cpu: None, p99: None } },
    Row { ours: Cell::TokenizeStream, ceiling: Cell::RawBulk, goal: Goal { rate: Some(1.0), cpu: None, p99: None } },
    Row { ours: Cell::Rewrap, ceiling: Cell::RawRewrite, goal: Goal { rate: Some(0.6), cpu: None, p99: None } },
    Row { ours: Cell::Sweep, ceiling: Cell::RawDelete, goal: Goal { rate: Some(0.8), cpu: None, p99: None } },
];

pub struct Size {
    pub cell: Duration,
    pub rounds: usize,
    /// What lies in every store before the first round.
    pub records: usize,
    /// What falls due at once for a sweep.
    pub due: usize,
    /// A grant is good for 1,000 reads.
    pub grants_a_stream: usize,
}

impl Size {
    fn chosen() -> Self {
        if std::env::var_os("STRONGROOM_FULL").is_some_and(|full| full == "1") {
            Self { cell: Duration::from_secs(5), rounds: 5, records: 100_000, due: 10_000, grants_a_stream: 32 }
        } else {
            Self { cell: Duration::from_secs(1), rounds: 3, records: 10_000, due: 2_000, grants_a_stream: 8 }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, role, folder] = arguments.as_slice()
        && first == server::ARGUMENT
    {
        return server::serve(role, folder.as_ref());
    }
    exit_on_panic();
    let named = |row: &Row| arguments.iter().any(|word| word.eq_ignore_ascii_case(&format!("{:?}", row.ours)));
    let rows: Vec<&Row> = ROWS.iter().filter(|row| arguments.is_empty() || named(row)).collect();
    let (size, seed) = (Size::chosen(), seed());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if arguments.is_empty() || arguments.iter().any(|word| word == "due") {
        let due = due::Size::chosen();
        let (measures, told) = due::measured(folder.path(), &due, seed);
        let rows: Vec<&Row> = due::ROWS.iter().collect();
        println!("{}\n{told}\n", report::tables(&rows, &measures));
    }
    if rows.is_empty() {
        return;
    }
    let mut bench = Bench::prepare(folder.path(), &size, seed);
    // The disk's flush is in all that is durable, and swings most of all: it stands beside every row.
    let cells: BTreeSet<Cell> = rows.iter().flat_map(|row| [Cell::Flush, row.ceiling, row.ours]).collect();
    let mut measures: BTreeMap<Cell, Vec<Measure>> = BTreeMap::new();
    for round in 0..=size.rounds {
        // Round 0 warms caches and connections up, and is thrown away.
        tell(&format!("round {round} of {}", size.rounds));
        let length = if round == 0 { Duration::from_millis(300) } else { size.cell };
        for cell in &cells {
            let measure = bench.run(*cell, length);
            if round > 0 {
                measures.entry(*cell).or_default().push(measure);
            }
        }
    }
    println!("{}", report::markdown(&rows, &measures, &size, seed));
}

/// Everything that the cells need, at work.
struct Bench {
    folder: PathBuf,
    size_due: usize,
    echo: Child,
    vault: Child,
    /// A vault whose clock leaps: its records fall due.
    aging: Child,
    /// A vault whose epochs change.
    rotating: Child,
    shop: Shop,
    aging_shop: Shop,
    random: RawStore,
    growing: RawStore,
    aging_raw: RawStore,
    rotating_raw: RawStore,
}

impl Bench {
    fn prepare(folder: &Path, size: &Size, seed: u64) -> Self {
        tell("starting servers");
        let echo = Child::start(Role::Echo, &folder.join("echo"));
        let vault = Child::start(Role::Vault, &folder.join("vault"));
        let aging = Child::start(Role::Vault, &folder.join("aging"));
        let rotating = Child::start(Role::Vault, &folder.join("rotating"));
        tell(&format!("storing {} records in the vault and in both raw stores", size.records));
        let shop = Shop::open(&vault, size.records, load::STREAMS * size.grants_a_stream, seed);
        let aging_shop = Shop::open(&aging, 1, 0, seed);
        drop(Shop::open(&rotating, size.records, 0, seed));
        let template = Template::of(&vault.database());
        let raw = |name: &str, ids| RawStore::create(&folder.join(name), template.clone(), ids, seed);
        let (mut random, mut growing) = (raw("random.db", Ids::Random), raw("growing.db", Ids::Growing));
        random.store(size.records);
        growing.store(size.records);
        let aging_raw = raw("aging.db", Ids::Random);
        let mut rotating_raw = raw("rotating.db", Ids::Growing);
        rotating_raw.store(size.records);
        Self {
            folder: folder.to_owned(),
            size_due: size.due,
            echo,
            vault,
            aging,
            rotating,
            shop,
            aging_shop,
            random,
            growing,
            aging_raw,
            rotating_raw,
        }
    }

    fn run(&mut self, cell: Cell, length: Duration) -> Measure {
        match cell {
            Cell::Flush => raw::flushes(&self.folder.join("flushed"), length.mul_f64(0.2)),
            Cell::Echo => {
                let target = self.echo.target("shop-backend");
                self.echo.watch(|| load::unary(&target, length, |channel, _| echo::Client::new(channel)))
            }
            Cell::Detokenize => self.vault.watch(|| self.shop.detokenize(length)),
            Cell::GetDelivery => self.vault.watch(|| self.shop.get_delivery(length)),
            Cell::Tokenize => self.vault.watch(|| self.shop.tokenize(length)),
            Cell::TokenizeStream => self.vault.watch(|| self.shop.tokenize_stream(length)),
            Cell::RawRandom => self.random.group_commits(length),
            Cell::RawGrowing => self.growing.group_commits(length),
            Cell::RawBulk => self.random.bulk_commits(length),
            Cell::RawDelete => {
                self.aging_raw.store(self.size_due);
                self.aging_raw.delete(self.size_due)
            }
            Cell::RawRewrite => self.rotating_raw.rewrite(),
            Cell::Rewrap => self.rotating.watch(|| self.rotating.rewrap()),
            Cell::Sweep => {
                self.aging_shop.store(self.size_due);
                self.aging.age(0);
                self.aging.watch(|| self.aging.sweep())
            }
            Cell::DueRaw | Cell::DueSweep | Cell::DueSweepBeside | Cell::DueReads | Cell::DueReadsBeside => {
                panic!("{cell:?} is measured in a story of its own")
            }
        }
    }
}

/// A caller that fails must not leave the others waiting for it.
fn exit_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |about| {
        tell(about);
        std::process::exit(1);
    }));
}

fn seed() -> u64 {
    std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Progress, beside the report.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
