//! `strongroom audit`: checks the log from its first entry to its last, and takes it out. INVARIANT: checking only reads, also
//! while a server holds the store; a flaw is told by its place and by an exit code of its own.

mod offline;
mod wire;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Cursor, Read, Seek as _};
use std::path::{Path, PathBuf};

use crate::audit::verify::{Flaw, Head, Verified};
use crate::cli::Failure;
use crate::cli::client::print;
use crate::cli::keys::unlock;
use crate::cli::serve::{failed, load};
use crate::crypto::keyring::Keyring;
use crate::crypto::root::RootSource;
use crate::domain::time::Timestamp;
use crate::store::{LogVerdict, verify_log, verify_state};
use offline::{Note, Report, VerifierKey, notes_in};

/// Check the audit log, sign its head, prove what is in it, take it out.
#[derive(clap::Subcommand)]
pub enum Args {
    Verify(Verify),
    Key(wire::Key),
    Checkpoint(wire::Head),
    Prove(wire::Prove),
    Export(wire::Export),
}

/// Check the log: that of a database, or one that was exported.
///
/// Of a database, every entry is checked against the tree of its hashes (RFC 6962), every head against the keys; --state compares
/// every row of facts with the log as well, and names one that was put back to an older version. Reads beside a server that runs.
/// Without a keyring the heads' authentication is left out: then a log that was rewritten whole is not told from the true one. Keep
/// the head that is printed, away from this machine: given as --known, it finds a log that was cut, or forked, since.
///
/// Of an export (--export), every byte is checked with the public key alone: no database, no keyring, no server. Signed heads kept
/// elsewhere, a witness's file or an earlier export (--known-file) find a log that was cut, or forked, since.
#[derive(clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 the log is whole; 5 it could not be read; 6 it was altered: the first bad place is printed.

Examples:
  strongroom audit verify --config strongroom.toml --state
  strongroom audit verify --database copy.db --keyring keyring --key-file root.key
  strongroom audit verify --database copy.db --known 1204:5f2b...
  strongroom audit verify --export log-2026.jsonl --key log.key --known-file heads")]
pub struct Verify {
    /// Takes the paths from a server's configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["database", "keyring", "key_file", "passphrase_file"])]
    config: Option<PathBuf>,
    /// The database, or a copy of it
    #[arg(long, value_name = "FILE", required_unless_present_any = ["config", "export"])]
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
    /// Compare the store's rows with the log too; needs the keyring
    #[arg(long)]
    state: bool,
    /// An export, in place of a database
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with_all = ["config", "database", "keyring", "known", "state"])]
    export: Option<PathBuf>,
    /// The public key of the log, as `strongroom audit key` prints it, or a file with it
    #[arg(long, requires = "export")]
    key: Option<String>,
    /// What is known of an exported log from elsewhere: signed heads, one or many, or an earlier export
    #[arg(long, value_name = "FILE", requires = "export")]
    known_file: Option<PathBuf>,
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
    match args {
        Args::Verify(verify) => match &verify.export {
            Some(export) => verify_export(export, verify.key.as_deref().unwrap_or(""), verify.known_file.as_deref()),
            None => verify_database(verify),
        },
        Args::Key(args) => wire::key(args),
        Args::Checkpoint(args) => super::client(wire::head(args)),
        Args::Prove(args) => super::client(wire::prove(args)),
        Args::Export(args) => super::client(wire::export(args)),
    }
}

fn verify_database(mut verify: Verify) -> Result<(), Failure> {
    let (known, state) = (verify.known.take(), verify.state);
    let (database, keyring) = verify.opened()?;
    let unreadable =
        |error: &dyn std::error::Error| failed(&format!("cannot read the audit log of {}", database.display()), error);
    let verdict = verify_log(&database, keyring.as_ref(), known).map_err(|error| unreadable(&error))?;
    let Verified { entries, root } = match verdict {
        LogVerdict::Sound(verified) => verified,
        LogVerdict::Flawed(Flaw { entry, what, .. }) => {
            return Err(altered(format!("the audit log was altered at entry {entry}: {what}")));
        }
    };
    let heads = if keyring.is_some() { "authentic" } else { "not checked: no keyring was given" };
    let root = hex::encode(root);
    let mut told = format!("entries  {entries}\nroot     {root}\nheads    {heads}\nknown    {entries}:{root}");
    if state {
        let keyring = keyring.ok_or_else(|| Failure::usage("--state needs the keyring: see --config, --keyring"))?;
        let flaws = verify_state(&database, &keyring).map_err(|error| unreadable(&error))?;
        if !flaws.is_empty() {
            let flaws: Vec<String> = flaws.iter().map(ToString::to_string).collect();
            return Err(altered(format!("the store is not what the log left: {}", flaws.join("; "))));
        }
        told.push_str("\nstate    as the log left it");
    }
    print(&told)
}

fn altered(message: String) -> Failure {
    Failure { message, code: FLAW }
}

fn verify_export(export: &Path, key: &str, known: Option<&Path>) -> Result<(), Failure> {
    let open = |path: &Path| File::open(path).map(BufReader::new).map_err(|error| Failure::io(path, &error));
    let text = if key.contains('+') { key.to_owned() } else { read_text(Path::new(key))? };
    let key = VerifierKey::parse(&text).ok_or_else(|| {
        Failure::usage("--key is no public key of a log: `strongroom audit key` prints it, as name+hash+key")
    })?;
    let (heads, earlier) = known.map_or(Ok((Vec::new(), None)), |path| known_from(path, &key))?;
    let verified = offline::verify(open(export)?, &key, &heads, earlier);
    let Report { tenant, checkpoint, from, entries, shown, heads_met, heads_beside } =
        verified.map_err(|flaw| altered(format!("{}: {flaw}", export.display())))?;
    let closed = if checkpoint.is_last { ", the year is closed" } else { "" };
    print(&format!(
        "log      {}\nhead     {} entries at {}{closed}\nroot     {}\nentries  {entries} from {from}, {shown} of {tenant}\n\
         known    {heads_met} heads met, {heads_beside} say nothing about this export",
        checkpoint.origin(),
        checkpoint.size,
        checkpoint.time,
        hex::encode(checkpoint.root),
    ))
}

type Earlier = (Vec<Note>, Option<BufReader<File>>);

/// Heads, or an export: that starts with a brace.
fn known_from(path: &Path, key: &VerifierKey) -> Result<Earlier, Failure> {
    let failed = |error: &std::io::Error| Failure::io(path, error);
    let mut file = BufReader::new(File::open(path).map_err(|error| failed(&error))?);
    if file.fill_buf().map_err(|error| failed(&error))?.first() == Some(&b'{') {
        return Ok((Vec::new(), Some(file)));
    }
    file.rewind().map_err(|error| failed(&error))?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| failed(&error))?;
    let heads = notes_in(&text, key);
    if heads.is_empty() {
        return Err(Failure::usage(format!("{} holds no head that this key has signed", path.display())));
    }
    Ok((heads, None))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::io(path, &error))
}

/// The verifier's own names of roles, actions, refusals, classes, purposes, fields and outcomes.
pub fn code_names() -> [&'static [(u8, &'static str)]; 7] {
    offline::code_names()
}

/// The offline verifier, for the tests that spoil exports: the flaw's line and entry, and what it says.
pub fn verify_bytes(
    export: &[u8],
    key: &str,
    known: &str,
    earlier: Option<&[u8]>,
) -> Result<u64, (u64, Option<u64>, String)> {
    let key = VerifierKey::parse(key).ok_or((0, None, "no key".to_owned()))?;
    let heads = notes_in(known, &key);
    let report = offline::verify(export, &key, &heads, earlier.map(Cursor::new));
    report.map(|report| report.shown).map_err(|flaw| (flaw.line, flaw.entry, flaw.what.to_string()))
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
