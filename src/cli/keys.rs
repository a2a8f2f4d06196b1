//! `strongroom keys`: makes the root key and the keyring, opens them, and looks after the epochs of a server. INVARIANT: `init`
//! overwrites neither, and makes no keyring beside a database that was written under another; a keyring is used only when no
//! registered copy is newer.

mod epochs;

use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::cli::client::print;
use crate::cli::serve::{failed, load};
use crate::cli::shares;
use crate::config::Config;
use crate::crypto::entropy::{Entropy, OsEntropy};
use crate::crypto::keyring::{Keyring, peek};
use crate::crypto::root::{Argon2Cost, RootHeader, RootSource, Split};
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
/// The root opens the keyring; the keyring holds the keys that open the data. A root file or a token's key that exists is used
/// as it is; a keyring that exists is never touched.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Init {
    /// Takes root and keyring from a server's configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keyring", "key_file", "passphrase_file"])]
    config: Option<PathBuf>,
    /// The keyring to make
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    keyring: Option<PathBuf>,
    /// The root: a file of 32 random bytes
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config", "passphrase_file", "shares"])]
    key_file: Option<PathBuf>,
    /// The root: a file with a passphrase, stretched by Argon2id
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    passphrase_file: Option<PathBuf>,
    /// The root: split among so many people, 2 to 32
    #[arg(long, value_name = "COUNT", requires = "threshold", conflicts_with_all = ["key_file", "passphrase_file"])]
    shares: Option<i64>,
    /// How many of them bring it back
    #[arg(long, value_name = "COUNT", requires = "shares")]
    threshold: Option<i64>,
    /// Writes each share to a file of its own in this folder, instead of printing them
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

const HELP: &str = "\
Where the root may be ([root] of the configuration; see `strongroom serve --help`): a key file, a passphrase file, a systemd
credential, the transit engine of OpenBao or Vault, a PKCS#11 token, AWS KMS, or shares among people. A key file, a passphrase
file and a token's key are made where they are missing; the others are yours to make first.

Examples:
  strongroom keys init --config strongroom.toml
  strongroom keys init --keyring keyring --passphrase-file /run/secrets/root
  strongroom keys init --keyring keyring --shares 5 --threshold 3
  strongroom keys init --config strongroom.toml --shares 5 --threshold 3 --out /media/shares";

const LOSS: &str = "\
KEEP COPIES of both, apart from each other and from the database:
  * without the root, or with every copy of the keyring lost, ALL DATA IS LOST; nobody can bring it back
  * whoever has both, and the database, can read all of it";

pub fn run(args: Args) -> Result<(), Failure> {
    let init = match args {
        Args::Init(init) => init,
        Args::Epochs(args) => return epochs::run(args),
    };
    let out = init.out.clone();
    let (root, keyring, database) = where_to(init)?;
    let minted = init_keys_to(&root, &keyring, database.as_deref(), out.as_deref(), &SystemClock::new(), &OsEntropy)?;
    let how = if minted { "made" } else { "used as it was" };
    print(&format!("root     {root} ({how})\nkeyring  {} (made)\n\n{LOSS}", keyring.display()))
}

fn where_to(init: Init) -> Result<(RootSource, PathBuf, Option<PathBuf>), Failure> {
    let split = init.shares.zip(init.threshold).map(|(shares, threshold)| Split::new(shares, threshold));
    let split = split.transpose().map_err(|bad| Failure::usage(format!("--shares with --threshold {bad}")))?;
    let (root, keyring, database) = match init {
        Init { config: Some(file), .. } => {
            let config = load(&file)?;
            if split.is_some_and(|split| config.root != RootSource::Shares(split)) {
                let file = file.display();
                return Err(Failure::usage(format!("[root] of {file} says otherwise than --shares and --threshold")));
            }
            (config.root, config.keyring, Some(config.store.database))
        }
        Init { keyring: Some(keyring), key_file: Some(path), .. } => (RootSource::KeyFile { path }, keyring, None),
        Init { keyring: Some(keyring), passphrase_file: Some(path), .. } => {
            (RootSource::PassphraseFile { path }, keyring, None)
        }
        Init { keyring: Some(keyring), .. } => {
            let split = split.ok_or_else(|| Failure::usage("name a root: see --help"))?;
            (RootSource::Shares(split), keyring, None)
        }
        _ => return Err(Failure::usage("name --config, or --keyring and a root")),
    };
    if init.out.is_some() && !matches!(root, RootSource::Shares(_)) {
        return Err(Failure::usage("--out is for shares, and this root is not split"));
    }
    Ok((root, keyring, database))
}

/// Makes the keyring, and the root if there is none; answers whether the root was made.
pub(super) fn init_keys(
    root: &RootSource,
    keyring: &Path,
    database: Option<&Path>,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<bool, Failure> {
    init_keys_to(root, keyring, database, None, clock, entropy)
}

/// The same, with a folder for a split root's shares.
fn init_keys_to(
    root: &RootSource,
    keyring: &Path,
    database: Option<&Path>,
    out: Option<&Path>,
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
    out.map_or(Ok(()), shares::prepare)?;
    let minted = root.mint(entropy).map_err(|error| failed(&format!("cannot make the root {root}"), &error))?;
    let fresh = root.fresh(Argon2Cost::STANDARD, entropy);
    let fresh = fresh.map_err(|error| failed(&format!("cannot use the root {root}"), &error))?;
    let split = match fresh.root.header() {
        RootHeader::Shares(set) => Some(set),
        _ => None,
    };
    if let Some(set) = split {
        // First: a keyring whose shares nobody got would be lost at once.
        shares::hand_out(&fresh, set, out)?;
    }
    Keyring::create(&fresh.root, clock.now(), entropy)
        .save(keyring, entropy)
        .map_err(|error| failed(&format!("cannot make the keyring {}", keyring.display()), &error))?;
    Ok(minted || split.is_some())
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

pub(super) fn no_keyring(keyring: &Path) -> Failure {
    let keyring = keyring.display();
    Failure::local(format!(
        "there is no keyring at {keyring}: make one with `strongroom keys init`, or bring a copy back"
    ))
}

/// Opens the keyring with its root, which is wiped when this returns; with one that is split, by shares from standard input.
pub(super) fn unlock(root: &RootSource, keyring: &Path) -> Result<Keyring, Failure> {
    if !keyring.exists() {
        return Err(no_keyring(keyring));
    }
    let unusable =
        |error: &dyn std::error::Error| failed(&format!("cannot open the keyring {}", keyring.display()), error);
    let header = peek(keyring).map_err(|error| unusable(&error))?;
    if let (RootSource::Shares(_), RootHeader::Shares(set)) = (root, &header.root) {
        return shares::open(keyring, set);
    }
    let key = root.unlock(&header.root).map_err(|error| failed(&format!("cannot use the root {root}"), &error))?;
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
        crate::crypto::root::mint_key_file(&path, &SeededEntropy::new(7)).unwrap();
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
        assert!(!keyring.exists() && !root.path().unwrap().exists());
    }

    #[test]
    fn a_missing_keyring_is_named_with_what_to_do() {
        let root = RootSource::KeyFile { path: "/nowhere/root.key".into() };
        let message = unlock(&root, Path::new("/nowhere/keyring")).unwrap_err().message;
        assert!(message.contains("/nowhere/keyring") && message.contains("strongroom keys init"));
    }
}
