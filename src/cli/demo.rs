//! `strongroom demo`: the whole vault at work on a file of orders, told for everyone. INVARIANT: every claim it prints was checked
//! from outside (on the wire, in the files' bytes, against the file of orders), one that does not hold fails the command, and
//! no personal data is printed.

mod leaks;
pub(super) mod orders;
pub(super) mod plan;
pub mod scan;
mod shop;
pub(super) mod stage;
mod tell;
pub(super) mod thief;
pub(super) mod transcript;
mod wanted;
mod wire;
mod year;

use std::path::PathBuf;

use self::leaks::Leaks;
use self::orders::Order;
use self::plan::{SELLING_DAYS, START, Story, midnight, stories};
use self::shop::Shop;
use self::stage::{Folder, Stage};
use self::tell::Line;
use self::thief::Thief;
use self::transcript::{Transcript, days_bar};
use self::wanted::StillWanted;
use self::year::{Year, month_name, month_number};
use crate::cli::Failure;
use crate::crypto::entropy::{OsEntropy, array};

/// Show the whole life of a shop's orders in the vault, from the first day to the last trace.
///
/// Runs a vault of its own on this machine, over real mutual TLS, and plays a shop, three carriers, a year of time and a
/// thief to it. Every sentence marked ✔ was checked; one that does not hold is marked ✘ and fails the command.
#[derive(clap::Args)]
#[command(after_long_help = "\
ORDERS.jsonl holds one order a line:
  {\"order\": \"SO-1\", \"customer\": \"C-1\", \"name\": \"…\", \"address\": {\"lines\": [\"…\"], \"locality\": \"…\", \"region\": \"\",
   \"postal_code\": \"…\", \"country\": \"DE\"}, \"email\": \"…\", \"phone\": \"+49 …\", \"emergency_contact\": {\"name\": \"…\", \"phone\": \"…\"}}

Examples:
  strongroom demo
  strongroom demo orders.jsonl --seed 7")]
pub struct Args {
    /// The shop's orders [default: a bundled sample of 60]
    #[arg(value_name = "ORDERS.jsonl")]
    orders: Option<PathBuf>,
    /// Deals dates, carriers, parcel numbers and events; the same seed tells the same story [default: a random one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where to work; must be new or empty, and stays afterwards [default: a temporary folder that goes]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Leave the temporary folder behind, keys and all
    #[arg(long)]
    keep: bool,
}

/// Days on which every file is searched for leaks while it is full of records: each lives for 60 days at least.
const SEARCHES: [i64; 3] = [30, 60, SELLING_DAYS];
/// The calendar stops no earlier than this.
const YEAR: i64 = 365;
/// How long before the end the account comes that is still in use then.
const ACCOUNT_DAYS: i64 = 30;

pub fn run(args: Args) -> Result<(), Failure> {
    let orders = orders::read(args.orders.as_deref())?;
    let still_wanted = orders::still_wanted()?;
    let seed = args.seed.unwrap_or_else(|| u64::from(u32::from_be_bytes(array(&OsEntropy))));
    let stories = stories(seed, orders.len());
    let folder = Folder::new("demo", args.dir.as_deref(), args.keep);
    let mut out = Transcript::default();
    out.line("Strongroom, shown from the first day to the last trace.\n")?;
    out.line(&format!("Seed {seed}: the same seed and file tell the same story again (--seed {seed})."))?;
    let stage = Stage::set(&folder, START, |_| ())?;
    out.line("A vault of its own serves on this machine, over mutual TLS. The calendar is simulated, day by day.")?;
    tell::orders(&mut out, &orders, &stories)?;

    let played = play(&mut out, &stage, &folder, &orders, &still_wanted, &stories);
    let config = stage.stop()?;
    let Remains { leaks, tokens, entries } = played?;
    tell::log(&mut out, &config, entries)?;
    tell::leaks(&mut out, leaks, &tokens, &folder)?;
    if folder.stays() {
        out.line(&format!("\nEverything was left in {} (keys and all).", folder.path.display()))?;
    }
    out.end()
}

/// What is looked at once the server has stopped.
struct Remains {
    leaks: Leaks,
    tokens: Vec<String>,
    /// How many entries the audit log has at least.
    entries: u64,
}

/// The acts that need a server.
fn play(
    out: &mut Transcript,
    stage: &Stage,
    folder: &Folder,
    orders: &[Order],
    still_wanted: &[Order],
    stories: &[Story],
) -> Result<Remains, Failure> {
    let everyone: Vec<&Order> = orders.iter().chain(still_wanted).collect();
    let mut leaks = Leaks::of_values(&everyone, stories)?;
    let mut thief = Thief::new(&stage.config.store.database);
    let mut shop = Shop::new(stage, orders, stories);
    let mut year = Year::of(&shop);
    let last = year.last_day().max(YEAR);
    let mut table = Vec::new();

    out.act("Ninety days of selling")?;
    out.say(&format!(
        "The shop sells for {SELLING_DAYS} days. Each day it hands that day's customers to the vault and keeps a token for each; \
         reads them back, to compare them with the file; and lets one carrier have each parcel (act 3)."
    ))?;
    let bar = days_bar(SELLING_DAYS);
    for day in 1..=SELLING_DAYS {
        stage.pass_a_day();
        shop.sell(day)?;
        thief.look()?;
        if SEARCHES.contains(&day) {
            leaks.search_folder(&folder.path)?;
        }
        year.midnight(day, &mut shop)?;
        table.extend(ended_month(day, last, &mut year, &shop)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    tell::intake(out, &shop)?;
    tell::carriers(out, &shop)?;

    tell::passing(out)?;
    tell::months(out, &mut table)?;
    let bar = days_bar(last - SELLING_DAYS);
    let mut wanted = StillWanted::default();
    for day in SELLING_DAYS + 1..=last {
        stage.pass_a_day();
        if day == last - ACCOUNT_DAYS {
            wanted.open_account(stage, still_wanted)?;
            year.others_kept += 1;
        }
        if day == last {
            wanted.place_order(stage, still_wanted)?;
            year.others_kept += 1;
        }
        year.midnight(day, &mut shop)?;
        table.extend(ended_month(day, last, &mut year, &shop)?);
        bar.inc(1);
        bar.suspend(|| tell::months(out, &mut table))?;
    }
    bar.finish_and_clear();
    tell::year(out, &year, &shop)?;

    thief.look()?;
    tell::theft(out, &thief, &shop, &wanted, folder)?;
    tell::statistics(out, &shop, &year)?;
    let tokens = shop.tokens.iter().flatten().chain(&wanted.tokens).cloned().collect();
    Ok(Remains { leaks, tokens, entries: stage.status()?.audit_entries })
}

/// The table's line of a month that ends with this day.
fn ended_month(day: i64, last: i64, year: &mut Year, shop: &Shop<'_>) -> Result<Option<Line>, Failure> {
    if day < last && month_number(midnight(day)) == month_number(midnight(day + 1)) {
        return Ok(None);
    }
    let month = year.close_month(shop);
    let status = shop.stage.status()?;
    let agrees = status.records_live == month.kept as u64 && status.records_due == 0;
    Ok(Some(Line { name: month_name(midnight(day)), month, agrees }))
}
