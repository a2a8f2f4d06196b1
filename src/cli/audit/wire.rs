//! The auditor's commands: signed heads, the key, proofs, and the log as a file. INVARIANT: an export that was cut off goes on
//! where its last whole section ended, under the head it began with; nothing but an export is ever written over.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::audit::checkpoint::{Checkpoint, verifier_key};
use crate::cli::Failure;
use crate::cli::callers::print_pending;
use crate::cli::client::{self, Connection, print, print_json, print_json_line};
use crate::cli::keys::unlock_either;
use crate::cli::serve::load;
use crate::rpc::proto::audit_service_client::AuditServiceClient;
use crate::rpc::proto::{
    CheckpointRequest, ConsistencyProofRequest, ExportRequest, InclusionProofRequest, export_response,
};

/// Print the key that the log's heads verify by.
///
/// In the C2SP form: name, hash and key, joined by plus signs. It is the same for all years. Get it once over a way you trust, and
/// keep it where nobody who runs the vault can change it.
#[derive(clap::Args)]
#[command(after_long_help = "\
For an auditor's or a privacy officer's certificate, or on the machine itself with --config.

Examples:
  strongroom audit key > log.key
  strongroom audit key --config strongroom.toml")]
pub struct Key {
    /// Reads the keyring of this configuration instead of asking a server
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Print a signed head of the log: made now, or the last of an earlier year.
#[derive(clap::Args)]
#[command(after_long_help = "\
For an auditor's or a privacy officer's certificate. Keep what it prints away from the vault: `strongroom audit verify` with
--known-file finds a log that was cut, or forked, since.

Examples:
  strongroom audit checkpoint >> heads
  strongroom audit checkpoint --year 2026")]
pub struct Head {
    /// The year whose tree is meant [default: the current one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    year: u32,
    #[command(flatten)]
    connection: Connection,
}

/// Prove that an entry is in the log, or that the log of now begins with the log of then.
#[derive(clap::Args)]
#[command(after_long_help = "\
For an auditor's or a privacy officer's certificate. Prints JSON: the signed head, and the hashes from the bottom up, in base64
(RFC 6962 §2.1). Numbers are counted in the year's tree, from 0.

Examples:
  strongroom audit prove --entry 17
  strongroom audit prove --from-size 1204")]
pub struct Prove {
    /// That this entry is in it
    #[arg(long, value_name = "NUMBER", required_unless_present = "from_size", conflicts_with = "from_size")]
    entry: Option<u64>,
    /// That it begins as it was when it had so many entries
    #[arg(long, value_name = "NUMBER")]
    from_size: Option<u64>,
    /// The year whose tree is meant [default: the current one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    year: u32,
    #[command(flatten)]
    connection: Connection,
}

/// Take the log of a year out as a file that verifies offline.
///
/// Takes two people: the first call prints the number of an approval; once somebody else has agreed, the same call writes the file. It
/// holds the entries of the certificate's tenant, and of all others the hashes that keep it provable. A call that was cut off goes
/// on when it is given again within 24 hours.
#[derive(clap::Args)]
#[command(after_long_help = "\
For an auditor's certificate.

Example:
  strongroom audit export log-2026.jsonl      (prints {\"pending_approval\": \"8f3c...\"})
  strongroom approve yes 8f3c...              (the second person: a key admin, an operator or a privacy officer)
  strongroom audit export log-2026.jsonl      (the first again)
  strongroom audit verify --export log-2026.jsonl --key log.key")]
pub struct Export {
    /// The file to write; one that was begun is gone on with
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The year whose tree is meant [default: the current one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    year: u32,
    /// Begin with the section of this entry
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    from_entry: u64,
    #[command(flatten)]
    connection: Connection,
}

async fn connect(connection: &Connection) -> Result<AuditServiceClient<Channel>, Failure> {
    Ok(AuditServiceClient::new(client::connect(connection).await?))
}

pub fn key(args: Key) -> Result<(), Failure> {
    if let Some(config) = args.config {
        let config = load(&config)?;
        let (keyring, _) = unlock_either(&config)?;
        return print(&verifier_key(&config.audit.keeping.name, &keyring.signer().public()));
    }
    crate::cli::client(async move {
        let mut vault = connect(&args.connection).await?;
        print(&client::answer(vault.checkpoint(CheckpointRequest { year: 0 })).await?.verifier_key)
    })
}

pub async fn head(args: Head) -> Result<(), Failure> {
    let mut vault = connect(&args.connection).await?;
    print(&client::answer(vault.checkpoint(CheckpointRequest { year: args.year })).await?.note)
}

pub async fn prove(args: Prove) -> Result<(), Failure> {
    let mut vault = connect(&args.connection).await?;
    let year = args.year;
    if let Some(entry) = args.entry {
        let proof = client::answer(vault.inclusion_proof(InclusionProofRequest { year, entry })).await?;
        return print_json(&json!({
            "checkpoint": proof.note,
            "entry": entry,
            "leaf_hash": encoded(&proof.leaf_hash),
            "hashes": proof.hashes.iter().map(|hash| encoded(hash)).collect::<Vec<_>>(),
        }));
    }
    let from_size = args.from_size.unwrap_or(0);
    let proof = client::answer(vault.consistency_proof(ConsistencyProofRequest { year, from_size })).await?;
    let hashes: Vec<String> = proof.hashes.iter().map(|hash| encoded(hash)).collect();
    print_json(&json!({ "checkpoint": proof.note, "from_size": from_size, "hashes": hashes }))
}

fn encoded(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub async fn export(args: Export) -> Result<(), Failure> {
    let begun = Begun::look(&args.out)?;
    let request = match &begun {
        None => ExportRequest { year: args.year, from_entry: args.from_entry, size: 0 },
        Some(begun) => ExportRequest {
            year: u32::try_from(begun.head.year).unwrap_or(0),
            from_entry: begun.next,
            size: begun.head.size,
        },
    };
    let mut vault = connect(&args.connection).await?;
    let mut parts = client::answer(vault.export(request)).await?;
    let mut next = async || client::next(&mut parts, "give the same command again to go on").await;
    let header = match next().await?.and_then(|part| part.result) {
        Some(export_response::Result::Lines(header)) => header,
        Some(export_response::Result::PendingApproval(pending)) => return print_pending(&pending),
        None => return Err(Failure::refused("the server answered without a result")),
    };
    let unreadable = || Failure::refused("the server's export has no header; is it another version?");
    let head = head_in(&header).ok_or_else(unreadable)?;
    let mut file = match begun {
        Some(begun) if begun.head == head => begun.file,
        Some(_) => return Err(Failure::refused("the server exports under another head than this file was begun with")),
        None => {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&args.out)?;
            file.write_all(header.as_bytes())?;
            file
        }
    };
    let bar = ProgressBar::new(head.size).with_style(style());
    while let Some(part) = next().await? {
        let Some(export_response::Result::Lines(lines)) = part.result else { return Err(unreadable()) };
        file.write_all(lines.as_bytes())?;
        bar.set_position(section_in(&lines).unwrap_or(0));
    }
    file.sync_all()?;
    bar.finish_and_clear();
    print_json_line(&json!({ "exported": args.out, "log": head.origin(), "size": head.size }))
}

fn style() -> ProgressStyle {
    let bar = "{bar:40} {human_pos}/{human_len} entries, {eta} left";
    ProgressStyle::with_template(bar).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A file that holds the beginning of an export.
struct Begun {
    file: File,
    head: Checkpoint,
    /// The first entry of its last section, which is fetched again: it may not be whole.
    next: u64,
}

impl Begun {
    /// `None`: there is no file yet.
    fn look(path: &Path) -> Result<Option<Self>, Failure> {
        let file = match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| Failure::io(path, &error))?,
        };
        let foreign = || Failure::usage(format!("{} is there and is no export that was begun", path.display()));
        let mut reader = BufReader::new(&file);
        let mut line = String::new();
        let mut at = reader.read_line(&mut line)? as u64;
        let head = head_in(&line).ok_or_else(foreign)?;
        let mut last = (at, from_in(&line).ok_or_else(foreign)?);
        loop {
            line.clear();
            // Whatever is behind the last section's start is thrown away, so what it is does not matter.
            let read = reader.read_line(&mut line).unwrap_or(0) as u64;
            if read == 0 {
                break;
            }
            if let Some(section) = section_in(&line) {
                last = (at, section);
            }
            at += read;
        }
        let (whole, next) = last;
        let mut file = file;
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        Ok(Some(Self { file, head, next }))
    }
}

fn head_in(header: &str) -> Option<Checkpoint> {
    let header: Value = serde_json::from_str(header).ok()?;
    Checkpoint::read(header.get("checkpoint")?.as_str()?).ok()
}

fn from_in(header: &str) -> Option<u64> {
    serde_json::from_str::<Value>(header).ok()?.get("from")?.as_u64()
}

/// The number of a section, by its first line.
fn section_in(lines: &str) -> Option<u64> {
    lines.strip_prefix("{\"section\":")?.split_once(',')?.0.parse().ok()
}
