//! `strongroom keys`: makes the root key and the keyring, opens them, and looks after the epochs of a server. INVARIANT: `init`
//! overwrites neither, and makes no keyring beside a database that was written under another; a keyring is used only when no
//! registered copy is newer.

mod epochs;

use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::cli::client::print;
use crate::cli::serve::{failed, load};
use crate::config::Config;
use crate::crypto::entropy::{Entropy, OsEntropy};
use crate::crypto::keyring::{Keyring, peek};
use crate::crypto::root::{Argon2Cost, RootSource, mint_key_file, mint_passphrase_file};
use crate::domain::fault::{Fault, planted};
use crate::domain::time::{Clock, SystemClock};
use crate::store::recorded_generation;

/// Make the root key and the keyring; look after the epochs of the keys.
///
/// Epochs come and go by the schedule of the server's [keys]; `list` shows which there are and what is overdue. The other
/// commands are for emergencies, and for a new root.
#[derive(clap::Subcommand)]
pub enum Args {
    Init(Init),
    #[command(flatten)]
    Epochs(epochs::Args),
}

/// Make a root (where there is none) and a keyring sealed under it.
///
/// The root is a key file or a passphrase file, mode 0600, which opens the keyring; the keyring holds the keys that open
/// the data. A root file that exists is used as it is; a keyring that exists is never touched.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Init {
    /// Takes the paths from a server's configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keyring", "key_file", "passphrase_file"])]
    config: Option<PathBuf>,
    /// The keyring to make
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    keyring: Option<PathBuf>,
    /// The root: a file of 32 random bytes
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config", "passphrase_file"])]
    key_file: Option<PathBuf>,
    /// The root: a file with a passphrase, stretched by Argon2id
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    passphrase_file: Option<PathBuf>,
}

const HELP: &str = "\
Examples:
  strongroom keys init --config strongroom.toml
  strongroom keys init --keyring keyring --passphrase-file /run/secrets/root";

const LOSS: &str = "\
KEEP COPIES of both, apart from each other and from the database:
  * without the root, or with every copy of the keyring lost, ALL DATA IS LOST; nobody can bring it back
  * whoever has both, and the database, can read all of it";

pub fn run(args: Args) -> Result<(), Failure> {
    let init = match args {
        Args::Init(init) => init,
        Args::Epochs(args) => return epochs::run(args),
    };
    let (root, keyring, database) = match init {
        Init { config: Some(file), .. } => {
            let config = load(&file)?;
            (config.root, config.keyring, Some(config.store.database))
        }
        Init { keyring: Some(keyring), key_file: Some(path), .. } => (RootSource::KeyFile { path }, keyring, None),
        Init { keyring: Some(keyring), passphrase_file: Some(path), .. } => {
            (RootSource::PassphraseFile { path }, keyring, None)
        }
        _ => return Err(Failure::usage("name --config, or --keyring and a root")),
    };
    let minted = init_keys(&root, &keyring, database.as_deref(), &SystemClock::new(), &OsEntropy)?;
    let how = if minted { "made" } else { "used as it was" };
    print(&format!("root     {} ({how})\nkeyring  {} (made)\n\n{LOSS}", root.path().display(), keyring.display()))
}

/// Makes the keyring, and the root if there is none; answers whether the root was made.
pub(super) fn init_keys(
    root: &RootSource,
    keyring: &Path,
    database: Option<&Path>,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<bool, Failure> {
    if keyring.symlink_metadata().is_ok() {
        return Err(Failure::local(format!("{} exists: a keyring is never overwritten", keyring.display())));
    }
    if let Some(database) = database.filter(|database| database.exists()) {
        return Err(Failure::local(format!(
            "{} exists and its keyring {} does not: bring the keyring back from a copy; a new one would open none of it",
            database.display(),
            keyring.display()
        )));
    }
    let mints = root.path().symlink_metadata().is_err();
    if mints {
        let minted = match root {
            RootSource::KeyFile { path } => mint_key_file(path, entropy),
            RootSource::PassphraseFile { path } => mint_passphrase_file(path, entropy),
        };
        minted.map_err(|error| failed(&format!("cannot make the root {}", root.path().display()), &error))?;
    }
    let header = root.fresh_header(Argon2Cost::STANDARD, entropy);
    let key = root
        .unlock(&header)
        .map_err(|error| failed(&format!("cannot use the root {}", root.path().display()), &error))?;
    Keyring::create(&key, clock.now(), entropy)
        .save(keyring, entropy)
        .map_err(|error| failed(&format!("cannot make the keyring {}", keyring.display()), &error))?;
    Ok(mints)
}

/// Opens the keyring with the configured root, or the next one; `true`: with the next one.
pub(super) fn unlock_either(config: &Config) -> Result<(Keyring, bool), Failure> {
    let refused = match unlock(&config.root, &config.keyring) {
        Ok(keyring) => return Ok((keyring, false)),
        Err(refused) => refused,
    };
    let next = config.keys.next_root.as_ref().ok_or(refused)?;
    unlock(next, &config.keyring).map(|keyring| (keyring, true))
}

/// Brings every registered copy of the keyring up to it. A keyring that is older than a copy is not used; one that the database
/// has never seen is used only once every copy has it, for what it wraps would be lost with its one file.
pub(super) fn settle_copies(config: &Config, keyring: &Keyring, entropy: &dyn Entropy) -> Result<(), Failure> {
    let unusable = |error: &dyn std::error::Error| failed("cannot use the keyring", error);
    let behind = config.keys.places.settle(keyring, entropy).map_err(|error| unusable(&error))?;
    for not in &behind {
        tracing::warn!(reason = %not, "a copy of the keyring cannot be brought up to it");
    }
    let database = &config.store.database;
    let seen = recorded_generation(database)
        .map_err(|error| failed(&format!("cannot read the database {}", database.display()), &error))?;
    match behind.first() {
        Some(not) if keyring.generation().0 > seen => Err(unusable(not)),
        _ => Ok(()),
    }
}

/// Opens the keyring with its root, which is wiped when this returns.
pub(super) fn unlock(root: &RootSource, keyring: &Path) -> Result<Keyring, Failure> {
    if !keyring.exists() {
        return Err(Failure::local(format!(
            "there is no keyring at {}: make one with `strongroom keys init`, or bring a copy back",
            keyring.display()
        )));
    }
    let unusable =
        |error: &dyn std::error::Error| failed(&format!("cannot open the keyring {}", keyring.display()), error);
    let header = peek(keyring).map_err(|error| unusable(&error))?;
    let key = root
        .unlock(&header.root)
        .map_err(|error| failed(&format!("cannot use the root {}", root.path().display()), &error))?;
    let opened = Keyring::load(keyring, &key).map_err(|error| unusable(&error));
    if planted(Fault::RootKept) {
        Box::leak(Box::new(key));
    }
    opened
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::domain::time::{SimulatedClock, Timestamp};

    fn init(root: &RootSource, keyring: &Path, database: Option<&Path>) -> Result<bool, Failure> {
        init_keys(root, keyring, database, &SimulatedClock::starting_at(Timestamp(0)), &SeededEntropy::new(1))
    }

    #[test]
    fn what_was_made_opens_and_is_never_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = RootSource::KeyFile { path: folder.path().join("root.key") };
        let keyring = folder.path().join("keyring");
        assert!(init(&root, &keyring, None).unwrap());
        let before = std::fs::read(&keyring).unwrap();
        assert_eq!(unlock(&root, &keyring).unwrap().generation().0, 1);
        assert!(init(&root, &keyring, None).unwrap_err().message.contains("never overwritten"));
        assert_eq!(std::fs::read(&keyring).unwrap(), before);
    }

    #[test]
    fn a_root_that_exists_is_used_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        mint_key_file(&path, &SeededEntropy::new(7)).unwrap();
        let before = std::fs::read(&path).unwrap();
        let root = RootSource::KeyFile { path: path.clone() };
        assert!(!init(&root, &folder.path().join("keyring"), None).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn no_keyring_is_made_beside_a_database_that_lost_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (database, keyring) = (folder.path().join("db"), folder.path().join("keyring"));
        std::fs::write(&database, "rows").unwrap();
        let root = RootSource::KeyFile { path: folder.path().join("root.key") };
        assert!(init(&root, &keyring, Some(&database)).unwrap_err().message.contains("from a copy"));
        assert!(!keyring.exists() && !root.path().exists());
    }

    #[test]
    fn a_missing_keyring_is_named_with_what_to_do() {
        let root = RootSource::KeyFile { path: "/nowhere/root.key".into() };
        let message = unlock(&root, Path::new("/nowhere/keyring")).unwrap_err().message;
        assert!(message.contains("/nowhere/keyring") && message.contains("strongroom keys init"));
    }
}
