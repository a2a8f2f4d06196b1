//! What was measured, as markdown. INVARIANT: a ratio is of two cells of one round, and the table gives the median of the
//! rounds with the least and the greatest; absolute figures stand beside it and are never compared across rounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::load::{CONNECTIONS, Load, STREAMS};
use crate::{Cell, Size};

/// One cell in one round.
pub struct Measure {
    /// Calls, or items, or records a second.
    rate: f64,
    /// Milliseconds; none where calls are not answered one by one.
    p50: Option<f64>,
    p99: Option<f64>,
    /// Microseconds on a core for one call, by the server's threads.
    cpu: BTreeMap<String, f64>,
    /// Calls in one commit.
    group: Option<f64>,
}

/// What the vault has to reach of a ceiling; none where nothing is asked.
pub struct Goal {
    pub rate: Option<f64>,
    pub cpu: Option<f64>,
    pub p99: Option<f64>,
}

pub struct Row {
    pub ours: Cell,
    pub ceiling: Cell,
    pub goal: Goal,
}

impl Measure {
    /// `cpu` in nanoseconds by thread, `commits` in the time of the load.
    pub fn new(mut load: Load, cpu: BTreeMap<String, u64>, commits: Option<u64>) -> Self {
        load.latencies.sort_unstable();
        let calls = load.calls.max(1) as f64;
        let at = |of_100: usize| {
            let place = load.latencies.len() * of_100 / 100;
            load.latencies.get(place).map(|micros| f64::from(*micros) / 1e3)
        };
        Self {
            rate: calls / load.lasted.as_secs_f64(),
            p50: at(50),
            p99: at(99),
            cpu: cpu.into_iter().map(|(thread, nanos)| (thread, nanos as f64 / 1e3 / calls)).collect(),
            group: commits.filter(|commits| *commits > 0).map(|commits| calls / commits as f64),
        }
    }

    /// Of all threads; none where nobody measured it.
    fn cpu_in_all(&self) -> Option<f64> {
        (!self.cpu.is_empty()).then(|| self.cpu.values().sum())
    }

    pub fn rate(&self) -> f64 {
        self.rate
    }
}

pub fn markdown(rows: &[&Row], measures: &BTreeMap<Cell, Vec<Measure>>, size: &Size, seed: u64) -> String {
    head(size, seed) + &tables(rows, measures)
}

/// What was reached of the ceilings, then the cells themselves.
pub fn tables(rows: &[&Row], measures: &BTreeMap<Cell, Vec<Measure>>) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "\n| operation | ceiling | throughput | goal | server CPU a call | goal | p99 | goal |");
    let _ = writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- |");
    let none = Vec::new();
    let of = |cell| measures.get(&cell).unwrap_or(&none);
    for row in rows {
        let (ours, theirs) = (of(row.ours), of(row.ceiling));
        let ratios = |figure: fn(&Measure) -> Option<f64>| -> Vec<f64> {
            let both = ours.iter().zip(theirs).map(|(ours, theirs)| Some(figure(ours)? / figure(theirs)?));
            both.collect::<Option<_>>().unwrap_or_default()
        };
        let rate = ratios(|one| Some(one.rate));
        let cpu = ratios(Measure::cpu_in_all);
        let p99 = ratios(|one| one.p99);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            name(row.ours),
            name(row.ceiling),
            spread(&rate, "×"),
            goal(row.goal.rate, &rate, "≥", |reached, goal| reached >= goal),
            spread(&cpu, "×"),
            goal(row.goal.cpu, &cpu, "≤", |reached, goal| reached <= goal),
            spread(&p99, "×"),
            goal(row.goal.p99, &p99, "≤", |reached, goal| reached <= goal),
        );
    }
    let _ = writeln!(text, "\n| cell | a second | p50, ms | p99, ms | server CPU a call, µs | calls a commit |");
    let _ = writeln!(text, "| --- | --- | --- | --- | --- | --- |");
    for (cell, rounds) in measures {
        let all = |figure: fn(&Measure) -> Option<f64>| -> Vec<f64> { rounds.iter().filter_map(figure).collect() };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            name(*cell),
            spread(&all(|one| Some(one.rate)), ""),
            spread(&all(|one| one.p50), ""),
            spread(&all(|one| one.p99), ""),
            threads(rounds),
            spread(&all(|one| one.group), ""),
        );
    }
    text
}

fn head(size: &Size, seed: u64) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |it| it.1);
    let build = if cfg!(debug_assertions) { "a debug build, which says nothing" } else { "release build" };
    format!(
        "{} rounds of {} s a cell, interleaved, on {cores} cores ({model}), {build}; {} records in every store, {} a sweep, \
         {STREAMS} streams over {CONNECTIONS} connections, seed {seed}; median (least–greatest) of the rounds.",
        size.rounds,
        size.cell.as_secs_f64(),
        size.records,
        size.due,
    ) + "\n"
}

fn name(cell: Cell) -> &'static str {
    match cell {
        Cell::Flush => "4 KiB appended and flushed to the disk",
        Cell::Echo => "bare mTLS echo, 16 B → 250 B",
        Cell::Detokenize => "Detokenize, 3 fields",
        Cell::GetDelivery => "GetDelivery",
        Cell::RawRandom => "raw group commit, random ids",
        Cell::Tokenize => "Tokenize, 5 fields, a new customer",
        Cell::RawGrowing => "raw group commit, growing ids",
        Cell::RawBulk => "raw commits of 4,096, random ids",
        Cell::TokenizeStream => "TokenizeStream, 2 streams",
        Cell::RawDelete => "raw delete, 20 a commit",
        Cell::RawRewrite => "raw sequential rewrite, 4,096 a commit",
        Cell::Rewrap => "rewrap, rows of all kinds",
        Cell::Sweep => "sweep (desensitize), 20 a commit",
        Cell::DueRaw => "raw delete of the oldest, growing ids, 20 a commit",
        Cell::DueSweep => "sweep of what fell due at once",
        Cell::DueSweepBeside => "the same while reads go on",
        Cell::DueReads => "Detokenize at an even pace",
        Cell::DueReadsBeside => "the same while the sweep goes on",
    }
}

/// By kind of thread, the dearest first, after their sum.
fn threads(rounds: &[Measure]) -> String {
    let mut by_thread: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (thread, micros) in rounds.iter().flat_map(|round| &round.cpu) {
        by_thread.entry(thread).or_default().push(*micros);
    }
    let mut by_thread: Vec<_> = by_thread.into_iter().map(|(thread, micros)| (median(&micros), thread)).collect();
    by_thread.sort_by(|a, b| b.0.total_cmp(&a.0));
    let parts: Vec<_> = by_thread
        .iter()
        .filter(|(micros, _)| *micros >= 0.1)
        .map(|(micros, thread)| format!("{thread} {}", figure(*micros)))
        .collect();
    let sum: Vec<f64> = rounds.iter().filter_map(Measure::cpu_in_all).collect();
    match parts.len() {
        0 => String::new(),
        1 => figure(median(&sum)),
        _ => format!("{}: {}", figure(median(&sum)), parts.join(", ")),
    }
}

fn goal(goal: Option<f64>, ratios: &[f64], sign: &str, met: impl Fn(f64, f64) -> bool) -> String {
    goal.map_or(String::new(), |goal| {
        let verdict = if met(median(ratios), goal) { "met" } else { "**missed**" };
        format!("{sign} {goal}×: {verdict}")
    })
}

/// `median (least–greatest)`.
fn spread(figures: &[f64], unit: &str) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = figures.iter().copied().fold(0.0, f64::max);
    format!("{}{unit} ({}–{})", figure(median(figures)), figure(least), figure(greatest))
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Two or three digits that say something.
fn figure(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.1}k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
