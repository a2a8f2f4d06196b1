//! Somebody who has taken a backup and tries whatever keys there are on it. INVARIANT: it reads files, and asks the vault nothing.

use std::fs;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;

use crate::cli::Failure;
use crate::cli::demo::scan::Scanner;
use crate::cli::demo::stage::Stage;
use crate::cli::serve::failed;
use crate::config::Config;
use crate::crypto::entropy::OsEntropy;
use crate::crypto::keyring::Keyring;
use crate::crypto::root::RootKey;
use crate::domain::id::TenantId;
use crate::domain::time::{Clock as _, SystemClock};
use crate::store::forensic::{Haul, Loot, Met, attack, dictionary};
use crate::vault::database_of;

pub struct Attacker {
    database: PathBuf,
    manifest: PathBuf,
    tenant: TenantId,
    loot: Loot,
}

impl Attacker {
    pub fn of(manifest: &Path, stage: &Stage) -> Result<Self, Failure> {
        let database = database_of(manifest);
        let mut loot = Loot::default();
        loot.gather(&database).map_err(|error| failed("the backup cannot be read", &error))?;
        Ok(Self { database, manifest: manifest.to_owned(), tenant: stage.tenant.clone(), loot })
    }

    pub fn attack(&self, keyring: &Keyring) -> Haul {
        attack(&self.loot, &Loot::default(), keyring)
    }

    /// With a keyring of somebody's own making, which is all there is without the root.
    pub fn attack_without_root(&self) -> Haul {
        let root = RootKey::generate(&OsEntropy);
        self.attack(&Keyring::create(&root, SystemClock::new().now(), &OsEntropy))
    }

    pub fn dictionary(&self, keyring: &Keyring, guesses: &[(&'static str, Vec<u8>)]) -> Result<Met, Failure> {
        let met = dictionary(&self.database, keyring, &self.tenant, guesses);
        met.map_err(|error| failed("the backup's index cannot be read", &error))
    }

    /// How many values stand in the bytes of the backup and of the live files.
    pub fn found_in_files(&self, scanner: &Scanner, config: &Config) -> Result<usize, Failure> {
        let mut wal = config.store.database.clone().into_os_string();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        let files =
            [&self.database, &self.manifest, &config.store.database, &wal, &config.store.ledger, &config.keyring];
        let mut found = 0;
        for path in files.into_iter().filter(|path| path.exists()) {
            found += scanner.scan_bytes(&fs::read(path).map_err(|error| Failure::io(path, &error))?).len();
        }
        Ok(found)
    }
}

/// Whether no 16 bytes in a row of these secrets stand in those files.
pub fn is_nowhere(secrets: &[&Path], files: &[&Path]) -> Result<bool, Failure> {
    let read = |path: &Path| fs::read(path).map_err(|error| Failure::io(path, &error));
    let secrets: Vec<Vec<u8>> = secrets.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    // Runs of one byte are everywhere.
    let is_telling = |piece: &&[u8]| piece.iter().any(|byte| Some(byte) != piece.first());
    let pieces = secrets.iter().flat_map(|secret| secret.windows(16)).filter(is_telling);
    let automaton = AhoCorasick::new(pieces).map_err(|_| Failure::local("a secret is too long to be looked for"))?;
    for path in files {
        if automaton.is_match(&read(path)?) {
            return Ok(false);
        }
    }
    Ok(true)
}
