//! `strongroom retention forecast`: what disappears in the days to come, and why. INVARIANT: a token is printed for whoever may have
//! it, or recognised among the shop's own from a file, and is on no command line; the calendar holds dates, counts and names of
//! the vocabulary alone.

mod calendar;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde_json::{Map, Value, json};

use self::calendar::Calendar;
use super::Failure;
use super::callers::plain_hex;
use super::client::{self, Connection, plain_name};
use super::inquire::listing::{Column, Listing};
use super::inquire::plain_text;
use crate::domain::id::TenantId;
use crate::domain::token::Token;
use crate::domain::vocabulary::{Class, EventKind, HoldKind};
use crate::rpc::proto::retention_service_client::RetentionServiceClient;
use crate::rpc::proto::{
    Disappearance, Ending, ForecastGroup, ForecastRecord, RetentionForecastRequest, RetentionForecastResponse,
    RetentionOutlookRequest, RetentionOutlookResponse,
};

const EXAMPLES: &str = "\
Tells it as things stand now: an event that is reported, a hold, an erasure changes it. What a hold keeps is listed with the \
hold: it becomes unreadable on its day, and goes when the hold is lifted. What is overdue counts as today's.

A privacy officer is told records by their tokens, to place a hold or answer a customer in time. A shop is told the digests of \
its tokens, and the tokens themselves from a file of its own (--tokens). An operator may ask --by day alone.

Examples:
  strongroom retention forecast
  strongroom retention forecast --days 30 --by day
  strongroom retention forecast --days 60 --tokens tokens.jsonl --json
  strongroom retention forecast --days 365 --by day --svg calendar.svg";

/// Tell what disappears in the days to come, by which rule; draw it as a calendar
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// How many days, from now: 1 to 400
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=400))]
    days: u32,
    /// A line for each thing that goes, or for each day and reason how many
    #[arg(long, value_name = "KIND", default_value = "record")]
    by: By,
    /// A shop's tokens, one a line, or a file that `import` made: lists what goes of these, by token
    #[arg(long, value_name = "FILE", conflicts_with = "by")]
    tokens: Option<PathBuf>,
    /// Draw a calendar of it into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON, one line a row, instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Record,
    Day,
}

const RECORDS: &[Column] = &[
    ("due", "due"),
    ("what", "what"),
    ("of", "class"),
    ("is", "ending"),
    ("because", "due_by"),
    ("rule", "rule"),
    ("held by", "held_by"),
    ("record", "name"),
];
const DAYS: &[Column] = &[
    ("day", "day"),
    ("records", "records"),
    ("what", "what"),
    ("of", "class"),
    ("is", "ending"),
    ("because", "due_by"),
    ("rule", "rule"),
    ("held by", "held_by"),
];

const NOTHING: &str = "Nothing disappears in that time.";

pub async fn run(args: Args) -> Result<(), Failure> {
    let mut vault = RetentionServiceClient::new(client::connect(&args.connection).await?);
    let (mut page_token, mut told, mut own) = (Vec::new(), None, None);
    loop {
        let page = match args.by {
            By::Record => {
                let request = RetentionForecastRequest { days: args.days, page_size: 256, page_token };
                client::page(async || vault.retention_forecast(request.clone()).await).await?
            }
            By::Day => {
                let request = RetentionOutlookRequest { days: args.days, page_token };
                in_sums(client::page(async || vault.retention_outlook(request.clone()).await).await?)
            }
        };
        let told = told.get_or_insert_with(|| Told::new(&args, &page));
        if let Some(path) = args.tokens.as_deref().filter(|_| own.is_none()) {
            own = Some(Own::read(path, &page.tenant)?);
        }
        told.page(&page, own.as_ref())?;
        if page.page_token.is_empty() {
            break;
        }
        page_token = page.page_token;
    }
    told.map_or(Ok(()), |told| told.end(args.svg.as_deref()))
}

/// An outlook is a forecast that names nobody.
fn in_sums(page: RetentionOutlookResponse) -> RetentionForecastResponse {
    let RetentionOutlookResponse { asked_at, until, zone, groups, altered, reached, page_token } = page;
    RetentionForecastResponse { asked_at, until, zone, groups, altered, reached, page_token, ..Default::default() }
}

/// What of the answer has come so far.
struct Told {
    listing: Listing,
    by: By,
    json: bool,
    groups: BTreeMap<Reason, u64>,
    calendar: Calendar,
    altered: u64,
}

/// What is counted together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Reason {
    day: String,
    class: &'static str,
    what: String,
    ending: &'static str,
    due_by: String,
    rule: String,
    source: String,
    held_by: Option<&'static str>,
}

impl Told {
    fn new(args: &Args, first: &RetentionForecastResponse) -> Self {
        let columns = if args.by == By::Record { RECORDS } else { DAYS };
        Self {
            listing: Listing::new(columns, args.json),
            by: args.by,
            json: args.json,
            groups: BTreeMap::new(),
            calendar: Calendar::new(day(first.asked_at, &first.zone), day(first.until, &first.zone)),
            altered: 0,
        }
    }

    fn page(&mut self, page: &RetentionForecastResponse, own: Option<&Own>) -> Result<(), Failure> {
        self.listing.progress(reached(page));
        self.altered += page.altered;
        let is_listed = |record: &&ForecastRecord| own.is_none_or(|own| own.of(record).is_some());
        let listed: Vec<_> = page.records.iter().filter(is_listed).collect();
        listed.into_iter().try_for_each(|record| self.record(record, own))?;
        for group in &page.groups {
            let reason = reason(group);
            if let Ok(day) = reason.day.parse() {
                self.calendar.add(day, &reason.told(), group.records, reason.held_by.is_some());
            }
            *self.groups.entry(reason).or_default() += group.records;
        }
        Ok(())
    }

    /// Table: a line for each thing that goes. JSON: a line for the record.
    fn record(&mut self, record: &ForecastRecord, own: Option<&Own>) -> Result<(), Failure> {
        let digest = plain_hex(&record.digest);
        let token = own.and_then(|own| own.of(record)).unwrap_or(record.token.as_str());
        let token = Some(token).filter(|token| !token.is_empty()).map(plain_name);
        let class = class(record.class);
        let shown = record.goes.iter().map(shown_disappearance);
        if self.json {
            let goes: Vec<Value> = shown.map(Value::Object).collect();
            let row = json!({ "record": digest, "token": token, "class": class, "goes": goes });
            return row.as_object().map_or(Ok(()), |row| self.listing.row(row.clone()));
        }
        for mut row in shown.collect::<Vec<_>>() {
            row.insert("class".to_owned(), json!(class));
            row.insert("name".to_owned(), json!(token.unwrap_or(digest)));
            self.listing.row(row)?;
        }
        Ok(())
    }

    fn end(mut self, svg: Option<&Path>) -> Result<(), Failure> {
        if self.by == By::Day {
            self.groups.iter().try_for_each(|(reason, records)| self.listing.row(reason.shown(*records)))?;
        }
        self.listing.end(NOTHING)?;
        if !self.json {
            print_sections(self.groups.keys())?;
        }
        if self.altered > 0 {
            let altered = self.altered;
            if self.json {
                client::print_json_line(&json!({ "altered": altered }))?;
            } else {
                client::print(&format!("{altered} records were altered outside the vault, and say nothing."))?;
            }
        }
        match svg {
            Some(path) => std::fs::write(path, self.calendar.svg()).map_err(|error| Failure::io(path, &error)),
            None => Ok(()),
        }
    }
}

/// Which section of the published policy each rule implements, once for all its lines.
fn print_sections<'a>(reasons: impl Iterator<Item = &'a Reason>) -> Result<(), Failure> {
    let sections: BTreeMap<_, _> = reasons.map(|reason| (reason.rule.as_str(), reason.source.as_str())).collect();
    for (rule, source) in sections.into_iter().filter(|(_, source)| !source.is_empty()) {
        client::print(&format!("\n{rule}\n  {source}"))?;
    }
    Ok(())
}

impl Reason {
    fn told(&self) -> String {
        format!("{} {} {}", self.class, self.what, self.ending)
    }

    fn shown(&self, records: u64) -> Map<String, Value> {
        let shown = json!({
            "day": self.day, "class": self.class, "what": self.what, "ending": self.ending, "due_by": self.due_by,
            "rule": self.rule, "source": self.source, "held_by": self.held_by, "records": records,
        });
        shown.as_object().cloned().unwrap_or_default()
    }
}

fn reason(group: &ForecastGroup) -> Reason {
    Reason {
        day: plain_text(&group.day),
        class: class(group.class),
        what: what(&group.piece),
        ending: ending(group.ending),
        due_by: plain_text(&group.due_by),
        rule: plain_text(&group.rule),
        source: plain_text(&group.source),
        held_by: held_by(group.held_by),
    }
}

fn shown_disappearance(going: &Disappearance) -> Map<String, Value> {
    let why = going.why.clone().unwrap_or_default();
    let waiting = why.waiting_for.iter().map(|code| u8::try_from(*code).ok().and_then(EventKind::from_code));
    let waiting: Vec<_> = waiting.map(|kind| kind.map_or("unknown", EventKind::as_str)).collect();
    let shown = json!({
        "due": client::shown(why.due), "what": what(&going.piece), "ending": ending(going.ending),
        "due_by": plain_text(&why.due_by), "rule": plain_text(&why.rule), "line": why.line,
        "source": plain_text(&why.source), "waiting_for": waiting, "held_by": held_by(going.held_by),
    });
    shown.as_object().cloned().unwrap_or_default()
}

fn what(piece: &str) -> String {
    if piece.is_empty() { "record".to_owned() } else { plain_name(piece).to_owned() }
}

fn class(code: i32) -> &'static str {
    u8::try_from(code).ok().and_then(Class::from_code).map_or("unknown", Class::as_str)
}

fn held_by(code: i32) -> Option<&'static str> {
    let kind = (code != 0).then(|| u8::try_from(code).ok().and_then(HoldKind::from_code));
    kind.map(|kind| kind.map_or("unknown", HoldKind::as_str))
}

fn ending(code: i32) -> &'static str {
    match Ending::try_from(code).unwrap_or(Ending::Unspecified) {
        Ending::Unspecified => "gone",
        Ending::Purged => "purged",
        Ending::Desensitized => "desensitized",
        Ending::Erased => "erased",
        Ending::Shredded => "shredded",
    }
}

/// The day in the shop's zone; a zone that this machine does not know is taken for UTC.
fn day(at: Option<prost_types::Timestamp>, zone: &str) -> Date {
    let at = at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok()).unwrap_or_default();
    let zone = jiff::tz::TimeZone::get(zone).unwrap_or(jiff::tz::TimeZone::UTC);
    at.to_zoned(zone).date()
}

/// How much of the time has been told, in thousandths.
fn reached(page: &RetentionForecastResponse) -> u32 {
    let seconds = |at: &Option<prost_types::Timestamp>| at.as_ref().map_or(0, |at| at.seconds);
    let (from, to) = (seconds(&page.asked_at), seconds(&page.until));
    let done = seconds(&page.reached).saturating_sub(from).max(0);
    u32::try_from(done.saturating_mul(1_000) / to.saturating_sub(from).max(1)).unwrap_or(1_000)
}

/// The shop's tokens by their digests.
struct Own(HashMap<String, String>);

impl Own {
    fn read(path: &Path, tenant: &str) -> Result<Self, Failure> {
        let tenant: TenantId =
            tenant.parse().map_err(|_| Failure::refused("the server answered with a tenant that is none"))?;
        let named = client::read_tokens(Some(path))?;
        let by_digest = named.iter().filter_map(|named| {
            let token = Token::parse(&named.token).ok()?;
            Some((hex::encode(token.digest(&tenant).0), named.token.to_string()))
        });
        Ok(Self(by_digest.collect()))
    }

    fn of(&self, record: &ForecastRecord) -> Option<&str> {
        self.0.get(&record.digest).map(String::as_str)
    }
}
