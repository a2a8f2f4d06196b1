//! `strongroom inquire`: an officer's questions to the audit log. INVARIANT: a token is asked about by standard input or file, and
//! printed by `seen-by` alone, whose purpose that is; what a server sends is printed without its control characters.

pub(super) mod listing;

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tonic::transport::Channel;

use self::listing::{Column, Listing};
use super::Failure;
use super::callers::{AnyOrOne, Who, plain_hex};
use super::client::{self, Connection, plain_name};
use crate::domain::caller::Role;
use crate::domain::time::{DAY, Timestamp};
use crate::domain::vocabulary::{Class, Field, Outcome, Purpose};
use crate::rpc::proto::inquiry_service_client::InquiryServiceClient;
use crate::rpc::proto::{
    AuditEntry, ExplainRequest, FieldSeen, RefusalGroup, RefusalsRequest, SeenByRequest, SeenSummary, SubjectSeen,
    UnusedGrant, UnusedGrantState, UnusedGrantsRequest, WhoSawRequest,
};

/// Ask the audit log: who saw whom, what was refused, what was never used.
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    /// Who saw this data subject
    #[command(after_long_help = WHO_SAW_HELP)]
    WhoSaw(WhoSaw),
    /// What this caller was shown, and whom that concerns
    #[command(after_long_help = SEEN_BY_HELP)]
    SeenBy(SeenBy),
    /// What was refused in a period, and why
    #[command(after_long_help = "\
For a privacy officer's or an auditor's certificate. The reasons are the log's own, finer than what the callers were told. \
The number in the last column is that of the last request of its kind: `strongroom inquire explain NUMBER`.

Examples:
  strongroom inquire refusals --day 2026-03-01
  strongroom inquire refusals --since 2026-03-01T08:00:00Z --until 2026-03-01T09:00:00Z --json")]
    Refusals(Refusals),
    /// Shipment grants that were never read
    #[command(after_long_help = "\
For a privacy officer's or an auditor's certificate. What is granted and never read is a carrier's access that nobody \
needed, or a parcel that went without it. Grants whose record is destroyed are gone with it.

Examples:
  strongroom inquire unused-grants
  strongroom inquire unused-grants --began-before 2026-03-01T00:00:00Z --json")]
    UnusedGrants(UnusedGrants),
    /// What one request did, in words
    #[command(after_long_help = "\
For a privacy officer's or an auditor's certificate. The number is the request's, as `who-saw` and `refusals` print it, or an \
approval's: then its whole story is told.

Example:
  strongroom inquire explain 8f3c0a1b2c3d4e5f60718293a4b5c6d7")]
    Explain(Explain),
}

#[derive(clap::Args)]
pub struct WhoSaw {
    /// A token of any record of the subject [default: standard input]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// From when on, as 2026-03-01T12:00:00Z [default: the beginning of the log]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    since: Option<Timestamp>,
    /// Before when [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    until: Option<Timestamp>,
    /// What showed nothing as well: refusals, grants, events, corrections, the record's end
    #[arg(long)]
    everything: bool,
    #[command(flatten)]
    shape: Shape,
}

#[derive(clap::Args)]
pub struct SeenBy {
    #[command(flatten)]
    caller: Who,
    #[command(flatten)]
    certificate: AnyOrOne,
    /// From when on, as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    since: Timestamp,
    /// Before when [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    until: Option<Timestamp>,
    #[command(flatten)]
    shape: Shape,
}

#[derive(clap::Args)]
pub struct Refusals {
    /// A whole day, UTC
    #[arg(long, value_name = "DATE", value_parser = day, required_unless_present = "since", conflicts_with_all = ["since", "until"])]
    day: Option<Timestamp>,
    /// From when on, as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    since: Option<Timestamp>,
    /// Before when [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    until: Option<Timestamp>,
    #[command(flatten)]
    shape: Shape,
}

#[derive(clap::Args)]
pub struct UnusedGrants {
    /// Those whose window began before [default: now]
    #[arg(long, value_name = "TIME", value_parser = client::instant)]
    began_before: Option<Timestamp>,
    #[command(flatten)]
    shape: Shape,
}

#[derive(clap::Args)]
pub struct Explain {
    /// The request's number: 32 hexadecimal digits
    #[arg(value_name = "NUMBER")]
    request: String,
    #[command(flatten)]
    shape: Shape,
}

#[derive(clap::Args)]
pub struct Shape {
    /// Print JSON, one line a row, as it comes, instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const HELP: &str = "\
Every question is logged itself, under the asker's name, before its answer comes. Answers tell of the asker's own shop, and \
reach back as far as the log is kept. `strongroom audit verify` says whether the log is whole.

Examples:
  strongroom inquire who-saw --token-file token.json
  strongroom inquire seen-by --role carrier --name swift --since 2026-03-01T00:00:00Z
  strongroom inquire refusals --day 2026-03-01";

const WHO_SAW_HELP: &str = "\
For a privacy officer's certificate. Prints every request that was shown a value of any record of the subject.

Examples:
  strongroom inquire who-saw --token-file token.json
  head -1 tokens.jsonl | strongroom inquire who-saw --everything --since 2026-01-01T00:00:00Z --json";

const SEEN_BY_HELP: &str = "\
For a privacy officer's certificate; for the day a certificate was stolen. Prints living subjects as tokens of their records \
(the shop knows by them whom to notify), with what was shown and when; then sums by field. Subjects that are gone since are \
counted by day: who they were nobody can tell any more.

Examples:
  strongroom inquire seen-by --role carrier --name swift --since 2026-03-01T00:00:00Z
  strongroom inquire seen-by --role shop --name backend --certificate stolen.pem --since 2026-03-01T08:00:00Z \\
    --until 2026-03-01T11:30:00Z --json > notify.jsonl";

/// A day's first instant.
fn day(raw: &str) -> Result<Timestamp, &'static str> {
    let date: jiff::civil::Date = raw.parse().map_err(|_| "not a date such as 2026-03-01")?;
    let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| "not a date that a calendar can name")?;
    Ok(Timestamp::from_jiff(zoned.timestamp()))
}

pub async fn run(args: Args) -> Result<(), Failure> {
    match args {
        Args::WhoSaw(ask) => who_saw(ask).await,
        Args::SeenBy(ask) => seen_by(ask).await,
        Args::Refusals(ask) => refusals(ask).await,
        Args::UnusedGrants(ask) => unused_grants(ask).await,
        Args::Explain(ask) => explain(ask).await,
    }
}

async fn connect(shape: &Shape) -> Result<InquiryServiceClient<Channel>, Failure> {
    Ok(InquiryServiceClient::new(client::connect(&shape.connection).await?))
}

async fn who_saw(ask: WhoSaw) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("at", "at"),
        ("who", "by"),
        ("did", "action"),
        ("for", "purpose"),
        ("fields", "fields"),
        ("refused", "refusal"),
        ("request", "request"),
    ];
    let token = client::read_token(ask.token_file.as_deref())?.to_string();
    let (since, until) = (ask.since.map(client::to_wire), ask.until.map(client::to_wire));
    let request = WhoSawRequest { token, since, until, everything: ask.everything };
    let mut parts = client::answer(connect(&ask.shape).await?.who_saw(request)).await?;
    let mut listing = Listing::new(COLUMNS, ask.shape.json);
    while let Some(part) = client::next(&mut parts, "ask again").await? {
        listing.progress(part.read_permille);
        part.entries.iter().try_for_each(|entry| listing.row(shown_entry(entry)))?;
    }
    listing.end("Nobody saw this subject in that time.")
}

async fn seen_by(ask: SeenBy) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("token", "token"),
        ("of", "tokens"),
        ("times", "times"),
        ("first", "first"),
        ("last", "last"),
        ("shown", "granted"),
        ("masked", "masked"),
    ];
    let (role, name) = (i32::from(ask.caller.role as u8), ask.caller.name.as_str().to_owned());
    let certificate = ask.certificate.hash()?;
    let (since, until) = (Some(client::to_wire(ask.since)), ask.until.map(client::to_wire));
    let request = SeenByRequest { role, name, certificate, since, until };
    let mut parts = client::answer(connect(&ask.shape).await?.seen_by(request)).await?;
    let (mut listing, mut summary) = (Listing::new(COLUMNS, ask.shape.json), None);
    while let Some(part) = client::next(&mut parts, "ask again").await? {
        listing.progress(part.read_permille);
        part.subjects.iter().try_for_each(|seen| listing.row(shown_subject(seen, ask.shape.json)))?;
        summary = part.summary.or(summary);
    }
    listing.end("No living subject was shown to this caller in that time.")?;
    let summary = summary.ok_or_else(|| Failure::refused("the answer ended before its sums"))?;
    if ask.shape.json {
        return client::print_json_line(&json!({ "summary": shown_sums(&summary) }));
    }
    client::print(&told_sums(&summary))?;
    const FIELDS: &[Column] = &[
        ("field", "field"),
        ("outcome", "outcome"),
        ("times", "times"),
        ("subjects", "subjects"),
        ("first", "first"),
        ("last", "last"),
    ];
    let mut fields = Listing::new(FIELDS, false);
    summary.fields.iter().try_for_each(|sum| fields.row(shown_field(sum)))?;
    fields.end("No field was asked for.")
}

async fn refusals(ask: Refusals) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("times", "times"),
        ("refused as", "refusal"),
        ("asked for", "action"),
        ("who", "by"),
        ("first", "first"),
        ("last", "last"),
        ("why", "why"),
        ("last request", "last_request"),
    ];
    let whole_day = ask.day.map(|day| (day, day.plus(DAY)));
    let since = whole_day.map(|(since, _)| since).or(ask.since).map(client::to_wire);
    let until = whole_day.map(|(_, until)| until).or(ask.until).map(client::to_wire);
    let mut parts = client::answer(connect(&ask.shape).await?.refusals(RefusalsRequest { since, until })).await?;
    let mut listing = Listing::new(COLUMNS, ask.shape.json);
    while let Some(part) = client::next(&mut parts, "ask again").await? {
        listing.progress(part.read_permille);
        part.groups.iter().try_for_each(|group| listing.row(shown_group(group)))?;
    }
    listing.end("Nothing was refused in that time.")
}

async fn unused_grants(ask: UnusedGrants) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[
        ("grant", "grant"),
        ("carrier", "carrier"),
        ("parcel", "parcel"),
        ("state", "state"),
        ("from", "not_before"),
        ("until", "not_after"),
        ("ended", "ended_at"),
    ];
    let request = UnusedGrantsRequest { began_before: ask.began_before.map(client::to_wire) };
    let mut parts = client::answer(connect(&ask.shape).await?.unused_grants(request)).await?;
    let mut listing = Listing::new(COLUMNS, ask.shape.json);
    while let Some(part) = client::next(&mut parts, "ask again").await? {
        part.grants.iter().try_for_each(|grant| listing.row(shown_grant(grant)))?;
    }
    listing.end("Every grant was read.")
}

async fn explain(ask: Explain) -> Result<(), Failure> {
    const COLUMNS: &[Column] = &[("at", "at"), ("what happened", "words")];
    let mut vault = connect(&ask.shape).await?;
    let mut parts = client::answer(vault.explain(ExplainRequest { request_id: ask.request })).await?;
    let mut listing = Listing::new(COLUMNS, ask.shape.json);
    while let Some(part) = client::next(&mut parts, "ask again").await? {
        listing.progress(part.read_permille);
        part.entries.iter().try_for_each(|entry| listing.row(shown_entry(entry)))?;
    }
    listing.end("The log of this shop knows no request of that number.")
}

type Row = Map<String, Value>;

fn row<const N: usize>(members: [(&str, Value); N]) -> Row {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn shown_entry(entry: &AuditEntry) -> Row {
    let outcome = |code: i32| u8::try_from(code).ok().and_then(Outcome::from_code).map_or("unknown", Outcome::as_str);
    let fields = entry.fields.iter().map(|one| (field(one.field).to_owned(), json!(outcome(one.outcome))));
    row([
        ("at", json!(client::shown(entry.at))),
        ("request", json!(plain_hex(&entry.request_id))),
        ("by", json!(caller(entry.role, &entry.name))),
        ("certificate", json!(plain_hex(&entry.certificate))),
        ("action", json!(plain_name(&entry.action))),
        ("class", json!(u8::try_from(entry.class).ok().and_then(Class::from_code).map(Class::as_str))),
        ("purpose", json!(u8::try_from(entry.purpose).ok().and_then(Purpose::from_code).map(Purpose::as_str))),
        ("refusal", json!(Some(entry.refusal.as_str()).filter(|code| !code.is_empty()).map(plain_name))),
        ("fields", Value::Object(fields.collect())),
        ("about", json!((entry.about_role != 0).then(|| caller(entry.about_role, &entry.about_name)))),
        ("words", json!(plain_text(&entry.words))),
    ])
}

fn shown_subject(seen: &SubjectSeen, all_tokens: bool) -> Row {
    let names = |codes: &[i32]| json!(codes.iter().map(|code| field(*code)).collect::<Vec<_>>());
    let tokens: Vec<&str> = seen.tokens.iter().map(|token| plain_name(token)).collect();
    let (token, tokens) = match tokens.first() {
        Some(first) if !all_tokens => (json!(first), json!(tokens.len())),
        first => (json!(first), json!(tokens)),
    };
    row([
        ("token", token),
        ("tokens", tokens),
        ("times", json!(seen.times)),
        ("first", json!(client::shown(seen.first))),
        ("last", json!(client::shown(seen.last))),
        ("granted", names(&seen.granted)),
        ("masked", names(&seen.masked)),
    ])
}

fn shown_sums(sums: &SeenSummary) -> Row {
    row([
        ("answered", json!(sums.answered)),
        ("showed", json!(sums.showed)),
        ("refused", json!(sums.refused)),
        ("subjects", json!(sums.subjects)),
        ("subjects_without_token", json!(sums.subjects_without_token)),
        ("gone_subject_days", json!(sums.gone_subject_days)),
        ("fields", json!(sums.fields.iter().map(shown_field).collect::<Vec<_>>())),
    ])
}

fn told_sums(sums: &SeenSummary) -> String {
    let SeenSummary { answered, showed, refused, subjects, subjects_without_token, gone_subject_days, .. } = sums;
    let mut told = format!(
        "\n{answered} requests were answered, {showed} of them with values; {refused} were refused.\n\
         {subjects} living subjects were seen and can be notified.\n"
    );
    if *subjects_without_token > 0 {
        told += &format!("{subjects_without_token} more are known, but their records are all over.\n");
    }
    if *gone_subject_days > 0 {
        told += &format!("Subjects that are gone since were seen on {gone_subject_days} days, counted one by one.\n");
    }
    told
}

fn shown_field(sum: &FieldSeen) -> Row {
    let outcome = u8::try_from(sum.outcome).ok().and_then(Outcome::from_code).map_or("unknown", Outcome::as_str);
    row([
        ("field", json!(field(sum.field))),
        ("outcome", json!(outcome)),
        ("times", json!(sum.times)),
        ("subjects", json!(sum.subjects)),
        ("first", json!(client::shown(sum.first))),
        ("last", json!(client::shown(sum.last))),
    ])
}

fn shown_group(group: &RefusalGroup) -> Row {
    row([
        ("refusal", json!(plain_name(&group.refusal))),
        ("why", json!(plain_text(&group.why))),
        ("action", json!(plain_name(&group.action))),
        ("by", json!(caller(group.role, &group.name))),
        ("times", json!(group.times)),
        ("first", json!(client::shown(group.first))),
        ("last", json!(client::shown(group.last))),
        ("last_request", json!(plain_hex(&group.last_request_id))),
    ])
}

fn shown_grant(grant: &UnusedGrant) -> Row {
    let state = match grant.state() {
        UnusedGrantState::Open => "open",
        UnusedGrantState::Over => "over",
        UnusedGrantState::Ended => "ended",
        UnusedGrantState::Unspecified => "unknown",
    };
    row([
        ("grant", json!(plain_name(&grant.grant_id))),
        ("carrier", json!(plain_name(&grant.carrier))),
        ("parcel", json!(grant.parcel)),
        ("state", json!(state)),
        ("not_before", json!(client::shown(grant.not_before))),
        ("not_after", json!(client::shown(grant.not_after))),
        ("ended_at", json!(client::shown(grant.ended_at))),
        ("reads_allowed", json!(grant.read_limit)),
    ])
}

fn caller(role: i32, name: &str) -> String {
    match u8::try_from(role).ok().and_then(Role::from_code) {
        Some(role) => format!("{}/{}", role.as_str(), plain_name(name)),
        None => "the vault".to_owned(),
    }
}

fn field(code: i32) -> &'static str {
    u8::try_from(code).ok().and_then(Field::from_code).map_or("unknown", Field::as_str)
}

pub(super) fn plain_text(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_date_in_utc() {
        assert_eq!(day("1970-01-02"), Ok(Timestamp(DAY)));
        for bad in ["yesterday", "2026-13-01", "2026-03-01T00:00:00Z extra", ""] {
            assert!(day(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_strange_server_says_steers_no_terminal() {
        let evil = "\u{1b}[2Jcanary 7f3a".to_owned();
        let entry = AuditEntry {
            request_id: evil.clone(),
            role: 99,
            name: evil.clone(),
            certificate: evil.clone(),
            action: evil.clone(),
            refusal: evil.clone(),
            words: evil.clone(),
            about_role: 1,
            about_name: evil.clone(),
            ..Default::default()
        };
        let group =
            RefusalGroup { refusal: evil.clone(), why: evil.clone(), role: 2, name: evil, ..Default::default() };
        for row in [shown_entry(&entry), shown_group(&group)] {
            assert!(!Value::Object(row).to_string().contains("u001b"));
        }
    }
}
