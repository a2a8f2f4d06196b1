//! The database as whoever can write the file sees it: tables, columns and rows, taken from the schema itself, so that a new
//! column is found without being named here.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use strongroom::crypto::entropy::{Entropy, SeededEntropy, array};

pub struct Table {
    pub name: String,
    pub columns: Vec<String>,
    /// Places of the primary key's columns.
    key: Vec<usize>,
    pub rows: Vec<Vec<Value>>,
}

/// One change of the database.
#[derive(Clone, Debug)]
pub enum Change {
    /// Table, row, column: another value.
    Alter(usize, usize, usize, Value),
    /// Table, row, column: text that is no UTF-8.
    Garble(usize, usize, usize),
    /// Table, two rows, columns whose values change places.
    Swap(usize, usize, usize, Vec<usize>),
}

pub fn tables(database: &Path) -> Vec<Table> {
    let connection = Connection::open(database).unwrap();
    let text = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let names: Vec<String> =
        connection.prepare(text).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    names.into_iter().map(|name| table(&connection, name)).collect()
}

fn table(connection: &Connection, name: String) -> Table {
    let mut statement = connection.prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid").unwrap();
    let columns: Vec<(String, i64)> =
        statement.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap();
    let key = (0..columns.len()).filter(|place| columns[*place].1 > 0).collect();
    let columns: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
    let mut statement = connection.prepare(&format!("SELECT {} FROM {name}", columns.join(", "))).unwrap();
    let rows = statement.query_map([], |row| (0..columns.len()).map(|place| row.get(place)).collect()).unwrap();
    let rows = rows.collect::<Result<_, _>>().unwrap();
    Table { name, columns, key, rows }
}

impl Change {
    /// `record.due` or `sealed.record+part`.
    pub fn place(&self, tables: &[Table]) -> String {
        let (table, columns) = match self {
            Change::Alter(table, _, column, _) | Change::Garble(table, _, column) => (table, vec![*column]),
            Change::Swap(table, _, _, columns) => (table, columns.clone()),
        };
        let table = &tables[*table];
        let names: Vec<_> = columns.iter().map(|column| table.columns[*column].as_str()).collect();
        format!("{}.{}", table.name, names.join("+"))
    }

    /// The table and the rows it changes.
    pub fn rows(&self) -> (usize, Vec<usize>) {
        match self {
            Change::Alter(table, row, ..) | Change::Garble(table, row, _) => (*table, vec![*row]),
            Change::Swap(table, one, other, _) => (*table, vec![*one, *other]),
        }
    }

    /// Makes the change; `false` when the schema itself does not take it.
    pub fn apply(&self, tables: &[Table], database: &Path) -> bool {
        let mut connection = Connection::open(database).unwrap();
        let transaction = connection.transaction().unwrap();
        let changed = match self {
            Change::Alter(table, row, column, value) => {
                let table = &tables[*table];
                put(&transaction, table, &table.rows[*row], *column, "?1", value)
            }
            Change::Garble(table, row, column) => {
                let table = &tables[*table];
                put(&transaction, table, &table.rows[*row], *column, "CAST(?1 AS TEXT)", &Value::Blob(vec![0xc3, 0x28]))
            }
            Change::Swap(table, one, other, columns) => {
                let table = &tables[*table];
                let (mut a, mut b) = (table.rows[*one].clone(), table.rows[*other].clone());
                columns.iter().for_each(|column| std::mem::swap(&mut a[*column], &mut b[*column]));
                [*one, *other].iter().for_each(|row| remove(&transaction, table, &table.rows[*row]));
                [a, b].iter().try_for_each(|row| insert(&transaction, table, row))
            }
        };
        if changed.is_ok() {
            transaction.commit().unwrap();
        }
        changed.is_ok()
    }
}

fn put(
    connection: &Connection,
    table: &Table,
    row: &[Value],
    column: usize,
    how: &str,
    value: &Value,
) -> rusqlite::Result<()> {
    let text = format!("UPDATE {} SET {} = {how} WHERE {}", table.name, table.columns[column], table.which(2));
    let values = std::iter::once(value).chain(table.key.iter().map(|place| &row[*place]));
    connection.execute(&text, params_from_iter(values)).map(|changed| assert_eq!(changed, 1))
}

fn remove(connection: &Connection, table: &Table, row: &[Value]) {
    let text = format!("DELETE FROM {} WHERE {}", table.name, table.which(1));
    let changed = connection.execute(&text, params_from_iter(table.key.iter().map(|place| &row[*place])));
    assert_eq!(changed.unwrap(), 1);
}

fn insert(connection: &Connection, table: &Table, row: &[Value]) -> rusqlite::Result<()> {
    let places: Vec<_> = (1..=row.len()).map(|place| format!("?{place}")).collect();
    let text = format!("INSERT INTO {} ({}) VALUES ({})", table.name, table.columns.join(", "), places.join(", "));
    connection.execute(&text, params_from_iter(row)).map(drop)
}

impl Table {
    pub fn integer(&self, row: usize, column: &str) -> i64 {
        let place = self.columns.iter().position(|name| name == column).unwrap();
        let Value::Integer(number) = self.rows[row][place] else { panic!("{column} is no integer") };
        number
    }

    fn which(&self, first: usize) -> String {
        let parts = self.key.iter().enumerate().map(|(n, place)| format!("{} IS ?{}", self.columns[*place], first + n));
        parts.collect::<Vec<_>>().join(" AND ")
    }
}

/// Draws from a seed.
pub struct Dice(SeededEntropy);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    pub fn below(&self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_be_bytes(bytes) % bound as u64).unwrap()
    }

    pub fn keep<T>(&self, from: &mut Vec<T>, count: usize) -> Vec<T> {
        (0..count.min(from.len())).map(|_| from.swap_remove(self.below(from.len()))).collect()
    }
}

/// Every way in which the cell is altered.
pub fn alterations(tables: &[Table], at: (usize, usize, usize), dice: &Dice) -> Vec<Change> {
    let (table, row, column) = at;
    let value = &tables[table].rows[row][column];
    let others = match value {
        Value::Integer(number) => vec![
            Value::Integer(number.wrapping_add(1)),
            Value::Integer(number.wrapping_sub(1)),
            Value::Integer(number ^ 1 << dice.below(63)),
            Value::Integer(-number - 7),
            Value::Text("x".to_owned()),
        ],
        Value::Text(text) => vec![
            Value::Text(format!("{text}x")),
            Value::Text(text.chars().rev().collect()),
            Value::Text(if text == "garden" { "kitchenware" } else { "garden" }.to_owned()),
            Value::Text(String::new()),
            Value::Integer(5),
        ],
        Value::Blob(bytes) => {
            let mut all =
                vec![Value::Blob([bytes.as_slice(), &[0]].concat()), Value::Integer(1), Value::Blob(vec![0; 16])];
            if !bytes.is_empty() {
                for place in [0, bytes.len() - 1, dice.below(bytes.len())] {
                    let mut flipped = bytes.clone();
                    flipped[place] ^= 1 << dice.below(8);
                    all.push(Value::Blob(flipped));
                }
                all.push(Value::Blob(bytes[..bytes.len() - 1].to_vec()));
                all.push(Value::Blob(Vec::new()));
            }
            all
        }
        Value::Null | Value::Real(_) => vec![Value::Integer(7), Value::Blob(array::<16>(&dice.0).to_vec())],
    };
    let garbled = matches!(value, Value::Text(_)).then_some(Change::Garble(table, row, column));
    let differs = |other: &Value| other != value;
    others.into_iter().filter(differs).map(|other| Change::Alter(table, row, column, other)).chain(garbled).collect()
}

/// Every column, and the whole key, exchanged between every two rows of a table.
pub fn swaps(tables: &[Table], table: usize) -> Vec<Change> {
    let it = &tables[table];
    let mut sets: Vec<Vec<usize>> = (0..it.columns.len()).map(|column| vec![column]).collect();
    sets.push(it.key.clone());
    let mut all = Vec::new();
    for one in 0..it.rows.len() {
        for other in one + 1..it.rows.len() {
            let moves = |columns: &&Vec<usize>| columns.iter().any(|c| it.rows[one][*c] != it.rows[other][*c]);
            all.extend(sets.iter().filter(moves).map(|columns| Change::Swap(table, one, other, columns.clone())));
        }
    }
    all
}
