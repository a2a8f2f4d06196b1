//! `strongroom audit`: checks the log from its first entry to its last. INVARIANT: it only reads, also while a server holds the
//! store, and a flaw is told by its place and by an exit code of its own.

use std::path::PathBuf;

use crate::audit::verify::{Flaw, Head, Verified};
use crate::cli::Failure;
use crate::cli::client::print;
use crate::cli::keys::unlock;
use crate::cli::serve::{failed, load};
use crate::crypto::keyring::Keyring;
use crate::crypto::root::RootSource;
use crate::domain::time::Timestamp;
use crate::store::{LogVerdict, verify_log};

/// Check the audit log.
#[derive(clap::Subcommand)]
pub enum Args {
    Verify(Verify),
}

/// Check every entry of the audit log against the tree of its hashes (RFC 6962), and every head against the keys.
///
/// Reads the database beside a server that runs. Without a keyring the heads' authentication is left out: then a log that
/// was rewritten whole is not told from the true one. Keep the head that is printed, away from this machine: given as --known,
/// it finds a log that was cut, or forked, since.
#[derive(clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 the log is whole; 5 it could not be read; 6 it was altered: the first bad place is printed.

Examples:
  strongroom audit verify --config strongroom.toml
  strongroom audit verify --database copy.db --keyring keyring --key-file root.key
  strongroom audit verify --database copy.db --known 1204:5f2b...")]
pub struct Verify {
    /// Takes the paths from a server's configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["database", "keyring", "key_file", "passphrase_file"])]
    config: Option<PathBuf>,
    /// The database, or a copy of it
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    database: Option<PathBuf>,
    /// The keyring that vouched for the log
    #[arg(long, value_name = "FILE", requires = "root")]
    keyring: Option<PathBuf>,
    /// The keyring's root: a key file
    #[arg(long, value_name = "FILE", group = "root", requires = "keyring")]
    key_file: Option<PathBuf>,
    /// The keyring's root: a passphrase file
    #[arg(long, value_name = "FILE", group = "root", requires = "keyring")]
    passphrase_file: Option<PathBuf>,
    /// A head printed earlier: the log must lead to it
    #[arg(long, value_name = "ENTRIES:ROOT", value_parser = head)]
    known: Option<Head>,
}

fn head(raw: &str) -> Result<Head, &'static str> {
    let form = "not ENTRIES:ROOT as printed, like 1204:5f2b... with 64 hexadecimal digits";
    let (size, digits) = raw.split_once(':').ok_or(form)?;
    let mut root = [0; 32];
    hex::decode_to_slice(digits, &mut root).map_err(|_| form)?;
    // When it was printed is nothing that a log could be checked by.
    Ok(Head { size: size.parse().map_err(|_| form)?, root, at: Timestamp(0) })
}

/// Exit code: the log was altered.
const FLAW: u8 = 6;

pub fn run(args: Args) -> Result<(), Failure> {
    let Args::Verify(mut verify) = args;
    let known = verify.known.take();
    let (database, keyring) = verify.opened()?;
    let verdict = verify_log(&database, keyring.as_ref(), known)
        .map_err(|error| failed(&format!("cannot read the audit log of {}", database.display()), &error))?;
    match verdict {
        LogVerdict::Sound(Verified { entries, root }) => {
            let heads = if keyring.is_some() { "authentic" } else { "not checked: no keyring was given" };
            let root = hex::encode(root);
            print(&format!("entries  {entries}\nroot     {root}\nheads    {heads}\nknown    {entries}:{root}"))
        }
        LogVerdict::Flawed(Flaw { entry, what, .. }) => {
            Err(Failure { message: format!("the audit log was altered at entry {entry}: {what}"), code: FLAW })
        }
    }
}

impl Verify {
    fn opened(self) -> Result<(PathBuf, Option<Keyring>), Failure> {
        if let Some(file) = self.config {
            let config = load(&file)?;
            return Ok((config.store.database, Some(unlock(&config.root, &config.keyring)?)));
        }
        let database = self.database.ok_or_else(|| Failure::usage("name --config or --database"))?;
        let key_file = self.key_file.map(|path| RootSource::KeyFile { path });
        let root = key_file.or(self.passphrase_file.map(|path| RootSource::PassphraseFile { path }));
        let keyring = root.zip(self.keyring).map(|(root, keyring)| unlock(&root, &keyring)).transpose()?;
        Ok((database, keyring))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_printed() {
        let read = head(&format!("1204:{}", "5f".repeat(32))).unwrap();
        assert_eq!((read.size, read.root), (1204, [0x5f; 32]));
        for bad in ["", "1204", "1204:5f", ":5f", &format!("x:{}", "5f".repeat(32)), &format!("1:{}", "5f".repeat(33))]
        {
            assert!(head(bad).is_err(), "{bad}");
        }
    }
}
