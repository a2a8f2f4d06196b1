//! Rows as they come, as a table or as lines of JSON. INVARIANT: memory stays within a bound however long the answer is; progress
//! goes to standard error, and only to a terminal.

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};

use crate::cli::Failure;
use crate::cli::client;

/// A heading, and the member of a row that stands under it.
pub(in crate::cli) type Column = (&'static str, &'static str);

/// A table is for eyes; what is more is for `--json`.
const TABLE: usize = 1_000;

const BAR: &str = "reading [{bar:30}] {percent} %";

pub(in crate::cli) struct Listing {
    columns: &'static [Column],
    json: bool,
    table: Table,
    rows: usize,
    bar: ProgressBar,
}

impl Listing {
    pub(in crate::cli) fn new(columns: &'static [Column], json: bool) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(columns.iter().map(|(heading, _)| *heading));
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr()).with_style(style);
        Self { columns, json, table, rows: 0, bar }
    }

    /// So much of the log is read, in thousandths.
    pub(in crate::cli) fn progress(&self, permille: u32) {
        self.bar.set_position(permille.min(1_000).into());
        if permille >= 1_000 {
            self.bar.finish_and_clear();
        }
    }

    pub(in crate::cli) fn row(&mut self, row: Map<String, Value>) -> Result<(), Failure> {
        self.rows += 1;
        if self.json {
            return client::print_json_line(&row);
        }
        if self.rows <= TABLE {
            self.table.add_row(self.columns.iter().map(|(_, key)| row.get(*key).map(cell).unwrap_or_default()));
        }
        Ok(())
    }

    /// Prints what is not printed yet; `nothing` where there was no row at all.
    pub(in crate::cli) fn end(self, nothing: &str) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        match self.rows {
            _ if self.json => Ok(()),
            0 => client::print(nothing),
            rows => {
                client::print(&self.table.to_string())?;
                let more = rows.saturating_sub(TABLE);
                if more == 0 { Ok(()) } else { client::print(&format!("… and {more} more: use --json")) }
            }
        }
    }
}

/// A value as people read it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            members.iter().map(|(key, value)| format!("{key} {}", cell(value))).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cell_is_read_without_knowing_json() {
        let told = |value: Value| cell(&value);
        assert_eq!(told(json!({ "address": "granted", "phone": "not_set" })), "address granted, phone not_set");
        assert_eq!(told(json!(["address", "phone"])), "address, phone");
        assert_eq!(
            (told(json!(null)), told(json!(3)), told(json!("x"))),
            (String::new(), "3".to_owned(), "x".to_owned())
        );
    }

    #[test]
    fn the_bars_template_is_one() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn a_long_table_is_cut_and_counted() {
        let mut listing = Listing::new(&[("n", "n")], false);
        for n in 0..TABLE + 5 {
            listing.row([("n".to_owned(), json!(n))].into_iter().collect()).unwrap();
        }
        assert_eq!((listing.rows, listing.table.row_count()), (TABLE + 5, TABLE));
    }
}
