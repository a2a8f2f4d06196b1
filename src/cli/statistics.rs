//! `strongroom statistics`: what is published of the months that are over. INVARIANT: it prints what the vault publishes, which
//! speaks of no fewer than ten people at a time.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::Failure;
use super::client::{self, Connection, print, print_json};
use crate::domain::time::{Clock as _, SystemClock};
use crate::domain::vocabulary::Class;
use crate::rpc::proto::statistics_service_client::StatisticsServiceClient;
use crate::rpc::proto::{PublishedCell, PublishedMonth, PublishedRequest};

const EXAMPLES: &str = "\
For an operator's certificate. Records desensitized, by class and country, for each month that is over; groups of fewer than
10 people are folded into `other`, and a month with fewer of them in all is not told. A month is published once and never
changes; there is no other partition to ask for.

Examples:
  strongroom statistics
  strongroom statistics --from 2026-01 --until 2026-06 --json";

/// Prints the statistics of the months that are over
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// The first month, as 2026-01 [default: a year before the last]
    #[arg(long, value_name = "MONTH")]
    from: Option<String>,
    /// The last month [default: this one]
    #[arg(long, value_name = "MONTH")]
    until: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let now = SystemClock::new().now().to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
    let until = args.until.unwrap_or_else(|| now.strftime("%Y-%m").to_string());
    let from = args.from.or_else(|| year_before(&until)).unwrap_or_else(|| until.clone());
    let mut vault = StatisticsServiceClient::new(client::connect(&args.connection).await?);
    let months = client::answer(vault.published(PublishedRequest { from, until })).await?.months;
    if args.json { print_json(&months.iter().map(shown).collect::<Vec<_>>()) } else { print(&table(&months)) }
}

/// The same month of the year before; what is no month is for the server to refuse.
fn year_before(month: &str) -> Option<String> {
    let (year, month) = month.split_once('-')?;
    Some(format!("{:04}-{month}", year.parse::<u16>().ok()?.checked_sub(1)?))
}

fn class(cell: &PublishedCell) -> &'static str {
    u8::try_from(cell.class).ok().and_then(Class::from_code).map_or("unknown", Class::as_str)
}

fn shown(month: &PublishedMonth) -> Value {
    let cells = month
        .cells
        .iter()
        .map(|cell| json!({ "class": class(cell), "country": cell.country, "records": cell.records }));
    json!({ "month": month.month, "cells": cells.collect::<Vec<_>>(), "other": month.other })
}

fn table(months: &[PublishedMonth]) -> String {
    if months.is_empty() {
        return "No month is over yet.".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["month", "class", "country", "records"]);
    for month in months {
        for cell in &month.cells {
            table.add_row([&month.month, class(cell), &cell.country, &cell.records.to_string()]);
        }
        match (month.cells.is_empty(), month.other) {
            (true, 0) => table.add_row([&month.month, "too few to be told", "", ""]),
            (false, 0) => continue,
            (_, other) => table.add_row([&month.month, "other", "", &other.to_string()]),
        };
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_ends_where_it_began() {
        assert_eq!(year_before("2026-03").as_deref(), Some("2025-03"));
        assert_eq!(year_before("March"), None);
    }

    #[test]
    fn a_month_too_small_to_be_told_is_told_as_that() {
        let cell = PublishedCell { class: 1, country: "DE".to_owned(), records: 12 };
        let month = |cells, other| PublishedMonth { month: "2026-03".to_owned(), cells, other };
        assert!(table(&[month(Vec::new(), 0)]).contains("too few"));
        let text = table(&[month(vec![cell], 11)]);
        assert!(text.contains("DE") && text.contains("other") && !text.contains("too few"), "{text}");
    }
}
