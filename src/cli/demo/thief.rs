//! Someone who takes everything: the database with its write-ahead log, the erasure ledger, the keyring and its root, and who
//! has noted every encrypted byte since the first day. INVARIANT: what this finds needs no help of the vault's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::cli::Failure;
use crate::cli::keys::unlock;
use crate::cli::serve::failed;
use crate::config::Config;
use crate::crypto::root::RootSource;
use crate::domain::token::TokenDigest;
use crate::store::forensic::{Haul, Loot, attack};

pub struct Thief {
    database: PathBuf,
    earlier: Loot,
}

/// What the theft has brought.
pub struct Theft {
    pub haul: Haul,
    /// How many records and encrypted values the thief remembers of earlier days.
    pub remembered: (usize, usize),
    /// The records of which a key, and those of which a value, still stands somewhere in the stolen files' bytes.
    pub keys_found: BTreeSet<TokenDigest>,
    pub values_found: BTreeSet<TokenDigest>,
    /// How much was searched.
    pub bytes: usize,
}

impl Thief {
    pub fn new(database: &Path) -> Self {
        Self { database: database.to_owned(), earlier: Loot::default() }
    }

    /// Notes what has come since the last look.
    pub fn look(&mut self) -> Result<(), Failure> {
        self.earlier.gather(&self.database).map_err(|error| failed("the thief cannot read the database", &error))
    }

    /// Copies all files of a vault that runs, keys and root included, and tries everything on them.
    pub fn steal(&self, config: &Config, into: &Path) -> Result<Theft, Failure> {
        fs::create_dir(into).map_err(|error| Failure::io(into, &error))?;
        let take = |from: &Path, name: &str| -> Result<PathBuf, Failure> {
            let to = into.join(name);
            fs::copy(from, &to).map_err(|error| Failure::io(from, &error))?;
            Ok(to)
        };
        let database = take(&self.database, "database")?;
        let mut wal = self.database.clone().into_os_string();
        wal.push("-wal");
        take(Path::new(&wal), "database-wal")?;
        take(&config.store.ledger, "ledger")?;
        let keyring = take(&config.keyring, "keyring")?;
        let root = match &config.root {
            RootSource::PassphraseFile { path } => RootSource::PassphraseFile { path: take(path, "root")? },
            RootSource::KeyFile { path } => RootSource::KeyFile { path: take(path, "root")? },
            elsewhere => return Err(Failure::local(format!("the thief cannot take the {}", elsewhere.kind()))),
        };
        // Before the database is opened: opening it may change the copy.
        let files = ["database", "database-wal", "ledger", "keyring", "root"].map(|name| into.join(name));
        let bytes: Vec<Vec<u8>> = files
            .iter()
            .map(|path| fs::read(path).map_err(|error| Failure::io(path, &error)))
            .collect::<Result<_, _>>()?;
        let keyring = unlock(&root, &keyring)?;
        let mut stolen = Loot::default();
        stolen.gather(&database).map_err(|error| failed("the thief cannot read the stolen database", &error))?;
        let (keys_found, values_found) = self.found_in(&bytes)?;
        Ok(Theft {
            haul: attack(&stolen, &self.earlier, &keyring),
            remembered: (self.earlier.records(), self.earlier.traces().iter().filter(|trace| !trace.is_key).count()),
            keys_found,
            values_found,
            bytes: bytes.iter().map(Vec::len).sum(),
        })
    }

    /// Searches raw bytes, free pages and all, for every key and value that was noted.
    fn found_in(&self, files: &[Vec<u8>]) -> Result<(BTreeSet<TokenDigest>, BTreeSet<TokenDigest>), Failure> {
        let traces = self.earlier.traces();
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(traces.iter().map(|trace| trace.bytes))
            .map_err(|_| Failure::local("there are too many keys to look for them at once"))?;
        let hits = files.iter().flat_map(|bytes| automaton.find_overlapping_iter(bytes));
        let hits = hits.filter_map(|hit| traces.get(hit.pattern().as_usize()));
        let (keys, values): (Vec<_>, Vec<_>) = hits.partition(|trace| trace.is_key);
        let records =
            |traces: Vec<&crate::store::forensic::Trace<'_>>| traces.iter().map(|trace| trace.record).collect();
        Ok((records(keys), records(values)))
    }
}
