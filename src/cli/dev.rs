//! `strongroom dev`: a vault to try things on, from nothing to commands ready to paste. INVARIANT: what exists in its folder is
//! used again and never replaced; nothing it mints is fit to protect real data, and it says so.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::cli::callers::{as_minted, enrol_offline};
use crate::cli::keys::init_keys;
use crate::cli::mint::{CertFolder, MintError, write_private};
use crate::cli::serve::{failed, load, run_server};
use crate::config::Config;
use crate::crypto::entropy::{Entropy, OsEntropy};
use crate::domain::caller::Role;
use crate::domain::id::BadName;
use crate::domain::time::{Clock, DAY, SystemClock, Timestamp};
use crate::telemetry;

/// Make and run a development vault; print commands ready to paste.
///
/// Mints what is missing in one folder (a CA, certificates for the server and for callers of every role, a root key, a
/// keyring, a configuration), enrols those callers, and serves until Ctrl-C. A second run uses what the first one made.
#[derive(clap::Args)]
#[command(after_long_help = "\
Everything lies in one folder on one device, so this protects nothing: for development only.

Examples:
  strongroom dev
  strongroom dev --dir /tmp/vault --listen 127.0.0.1:0")]
pub struct Args {
    /// The folder; made with mode 0700
    #[arg(long, value_name = "FOLDER", default_value = "strongroom-data")]
    dir: PathBuf,
    /// Where to listen; port 0 takes a free one [default: as config.toml says, 127.0.0.1:7443 at first]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

pub const TENANT: &str = "kitchenware";
pub const TRUST_DOMAIN: &str = "strongroom.dev";
/// Everyone who can call the development vault; the files are `<role>-<name>.pem` and `-key.pem`.
pub const CALLERS: &[(Role, &str)] = &[
    (Role::Shop, "backend"),
    (Role::Carrier, "swift"),
    (Role::Carrier, "parcelo"),
    (Role::Carrier, "northwind"),
    (Role::Warehouse, "packing"),
    (Role::CustomerService, "desk"),
    (Role::Finance, "desk"),
    (Role::PrivacyOfficer, "office"),
    (Role::Operator, "oncall"),
    (Role::Auditor, "office"),
    (Role::KeyAdmin, "office"),
];
const CALLERS_LIFETIME: i64 = 365 * DAY;

const CONFIG: &str = "config.toml";
const CERTS: &str = "certs";
/// Who was enrolled with what: a line a caller, its path, its CA's key, its own keys.
const ENROLLED: &str = "enrolled.txt";
const CUSTOMER: &str = "customer.json";

pub fn run(args: Args) -> Result<(), Failure> {
    let config = prepare(&args.dir, args.listen, &SystemClock::new(), &OsEntropy)?;
    telemetry::init(&config.log).map_err(|error| failed("cannot start the log", &error))?;
    let dir = fs::canonicalize(&args.dir).map_err(|error| Failure::io(&args.dir, &error))?;
    let program = std::env::current_exe().unwrap_or_else(|_| "strongroom".into());
    run_server(config, |running| {
        let guide = guide(&program, &dir, running.address);
        let how = if running.vault().is_some() { "ready" } else { "sealed" };
        writeln!(io::stdout(), "{guide}\n{how} https://{}", running.address)
    })
}

/// Makes what is missing in `dir`, and reads its configuration. `clock` must be the real one: certificates live by it.
pub fn prepare(
    dir: &Path,
    listen: Option<SocketAddr>,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<Config, Failure> {
    make_folder(dir)?;
    let unless_there = |name: &str, content: &str| {
        let path = dir.join(name);
        if path.exists() { Ok(()) } else { write_private(&path, content.as_bytes()) }
    };
    // The configuration first: it marks the folder as ours, should the rest be interrupted.
    unless_there(CONFIG, &configuration(listen))
        .and_then(|()| unless_there(CUSTOMER, EXAMPLE_CUSTOMER))
        .and_then(|()| mint_missing(&dir.join(CERTS), clock.now()))
        .map_err(|error| failed("cannot mint", &error))?;
    let mut config = load(&dir.join(CONFIG))?;
    if let Some(backups) = config.backups.as_ref().filter(|backups| !backups.exists()) {
        make_private(backups).map_err(|error| Failure::io(backups, &error))?;
    }
    if let Some(address) = listen {
        config.listener.address = address;
    }
    if !config.keyring.exists() {
        init_keys(&config.root, &config.keyring, Some(&config.store.database), clock, entropy)?;
    }
    enrol_missing(dir, &config, clock.now(), entropy)?;
    Ok(config)
}

/// Ours alone, and nobody else's before us.
fn make_folder(dir: &Path) -> Result<(), Failure> {
    let bad = |error: io::Error| Failure::io(dir, &error);
    make_private(dir).map_err(bad)?;
    if fs::read_dir(dir).map_err(bad)?.next().is_some() && !dir.join(CONFIG).exists() {
        let dir = dir.display();
        return Err(Failure::local(format!("{dir} holds other things: name an empty folder or a new one with --dir")));
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(bad)
}

fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A revocation list signed today, and every certificate that is not there yet.
fn mint_missing(dir: &Path, now: Timestamp) -> Result<(), MintError> {
    let folder = if dir.join("ca.pem").exists() {
        let folder = CertFolder::open(dir)?;
        folder.refresh_crl(now)?;
        folder
    } else {
        CertFolder::init(dir, now)?
    };
    if !dir.join("server.pem").exists() {
        folder.server("server", &["localhost", "127.0.0.1", "::1"], now)?;
    }
    for (role, name) in CALLERS {
        if dir.join(format!("{}-{name}.pem", role.as_str())).exists() {
            continue;
        }
        let bad =
            |_: BadName| MintError::BadFile { path: dir.to_owned(), what: "a caller's name is outside the grammar" };
        let (tenant, name) = (TENANT.parse().map_err(bad)?, name.parse().map_err(bad)?);
        folder.client(TRUST_DOMAIN, &tenant, *role, &name, now, now.plus(CALLERS_LIFETIME))?;
    }
    Ok(())
}

/// Enrols every caller that is not enrolled yet with the certificate it has. What was enrolled is noted beside the store, so
/// that a store in service need not be opened to know.
fn enrol_missing(dir: &Path, config: &Config, now: Timestamp, entropy: &dyn Entropy) -> Result<(), Failure> {
    let (note, certs) = (dir.join(ENROLLED), dir.join(CERTS));
    let noted =
        if config.store.database.exists() { fs::read_to_string(&note).unwrap_or_default() } else { String::new() };
    let (mut lines, mut missing) = (String::new(), Vec::new());
    for (role, name) in CALLERS {
        let id = format!("tenant/{TENANT}/{}/{name}", role.as_str());
        let id = id.parse().map_err(|error| failed("a caller's name is outside the grammar", &error))?;
        let caller = as_minted(id, &certs.join("ca.pem"), &certs.join(format!("{}-{name}.pem", role.as_str())))?;
        let pins: String = caller.pins.keys().iter().map(|pin| format!(" {}", hex::encode(pin.0))).collect();
        let line = format!("{} {}{pins}\n", caller.id, hex::encode(caller.issuer.0));
        if !noted.contains(&line) {
            missing.push(caller);
        }
        lines.push_str(&line);
    }
    if missing.is_empty() {
        return Ok(());
    }
    enrol_offline(config, missing, now, entropy)?;
    write_private(&note, lines.as_bytes()).map_err(|error| failed("cannot note who is enrolled", &error))
}

fn configuration(listen: Option<SocketAddr>) -> String {
    let address = listen.map_or_else(|| "127.0.0.1:7443".to_owned(), |address| address.to_string());
    format!(
        "\
# A development vault, made by `strongroom dev`. For development only: see [root].
trust_domain = \"{TRUST_DOMAIN}\"

[listen]
address = \"{address}\"

[tls]
certificate = \"certs/server.pem\"
key = \"certs/server-key.pem\"
roots = \"certs/ca.pem\"
crls = [\"certs/crl.pem\"]

[data]
database = \"strongroom.db\"
ledger = \"erasure.ledger\"
keyring = \"keyring\"
backups = \"backups\"
reserve = \"1MiB\"

[root]
key_file = \"root.key\"
# The root beside the data protects nothing: whoever takes this disk has both. Elsewhere, leave this line out.
allow_same_device = true

[log]
file = \"strongroom.log\"

[[tenant]]
name = \"{TENANT}\"
policy = \"builtin:kitchenware\"

# What the carriers' parcel numbers look like.
[[carrier]]
name = \"swift\"
serial = '[A-Z]{{2}}[0-9]{{9}}'

[[carrier]]
name = \"parcelo\"
serial = 'PC-[0-9]{{16}}'

[[carrier]]
name = \"northwind\"
serial = '[0-9]{{20}}'
"
    )
}

/// Nobody: a name of the standards' authors' making, a number that Germany keeps free for fiction.
const EXAMPLE_CUSTOMER: &str = "\
{\"order\": \"SO-1\", \"customer\": \"C-1\", \"name\": \"Erika Mustermann\",
 \"address\": {\"lines\": [\"Heidestraße 17\"], \"locality\": \"Köln\", \"region\": \"\", \"postal_code\": \"51147\", \"country\": \"DE\"},
 \"email\": \"erika@example.org\", \"phone\": \"+49 30 23125042\"}
";

/// Commands for another terminal, each to be pasted as it is.
fn guide(program: &Path, dir: &Path, address: SocketAddr) -> String {
    let (program, dir) = (quoted(program), quoted(dir));
    let mut text = format!(
        "\
Strongroom serves https://{address} for development. Data, keys and the log are in {dir}.
The root key lies beside the data (allow_same_device = true): this protects nothing against a thief of the disk.

Paste into another terminal:

export STRONGROOM_SERVER=https://{address}
export STRONGROOM_CA={dir}/{CERTS}/ca.pem
as_caller() {{ who=$1; shift; STRONGROOM_CERT={dir}/{CERTS}/$who.pem STRONGROOM_KEY={dir}/{CERTS}/$who-key.pem {program} \"$@\"; }}
"
    );
    for (why, command) in STEPS {
        let _ = write!(text, "\n# {why}\n{}\n", command.replace("DIR", &dir).replace("PROGRAM", &program));
    }
    let _ = write!(text, "\nCallers:");
    for (role, name) in CALLERS {
        let _ = write!(text, " {}-{name}", role.as_str());
    }
    text + "\nCtrl-C stops the vault; the next run uses the same folder.\n"
}

const STEPS: &[(&str, &str)] = &[
    (
        "A customer goes in, a token comes out.",
        "as_caller shop-backend tokenize --input DIR/customer.json | tee DIR/token.json",
    ),
    (
        "The warehouse sees what its label needs.",
        "as_caller warehouse-packing detokenize --token-file DIR/token.json --fields recipient_name,address --purpose fulfilment",
    ),
    (
        "A parcel is granted to a carrier, which gets its address and serial ...",
        "echo SW123456789 | as_caller shop-backend grant --token-file DIR/token.json --carrier swift\n\
         echo SW123456789 | as_caller carrier-swift deliver",
    ),
    ("... and no other carrier does.", "echo SW123456789 | as_caller carrier-parcelo deliver"),
    (
        "The parcel is signed for: the grant ends, the 60 days begin.",
        "echo SW123456789 | as_caller carrier-swift deliver --confirm",
    ),
    ("When it disappears, and why.", "as_caller shop-backend describe --token-file DIR/token.json"),
    ("Who saw this customer.", "as_caller privacy-officer-office inquire who-saw --token-file DIR/token.json"),
    ("How the vault is.", "as_caller operator-oncall status"),
    (
        "A carrier is suspended at once. Letting it back in takes two people: the number printed is for the second.",
        "as_caller key-admin-office callers suspend --role carrier --name parcelo\n\
         as_caller key-admin-office callers resume --role carrier --name parcelo\n\
         as_caller operator-oncall approve list",
    ),
    (
        "Key epochs follow each other on schedule; in an emergency, at once.",
        "as_caller key-admin-office keys rotate\nas_caller key-admin-office keys list",
    ),
    ("The whole audit log, checked.", "PROGRAM audit verify --config DIR/config.toml"),
];

/// The path as a POSIX shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;

    fn prepared(dir: &Path) -> Result<Config, Failure> {
        prepare(dir, Some(SocketAddr::from(([127, 0, 0, 1], 0))), &SystemClock::new(), &SeededEntropy::new(1))
    }

    fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(contents(&path));
            } else if !path.ends_with("crl.pem") {
                files.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
        files.sort();
        files
    }

    #[test]
    fn a_second_run_uses_all_that_the_first_one_made() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let config = prepared(&dir).unwrap();
        assert_eq!(config.listener.address.port(), 0);
        let first = contents(&dir);
        assert!(first.len() > 2 * CALLERS.len());
        prepared(&dir).unwrap();
        assert_eq!(contents(&dir), first);
    }

    #[test]
    fn the_folder_and_every_secret_in_it_are_its_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        prepared(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        for (path, _) in contents(&dir) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }

    #[test]
    fn what_an_interrupted_run_did_not_make_is_made_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        prepared(dir.path()).unwrap();
        let late = ["keyring", "strongroom.db", "strongroom.lock", "erasure.ledger", "enrolled.txt"];
        for file in ["certs/carrier-swift.pem", "certs/carrier-swift-key.pem", "certs/crl.pem"].iter().chain(&late) {
            fs::remove_file(dir.path().join(file)).unwrap();
        }
        prepared(dir.path()).unwrap();
        let enrolled = fs::read_to_string(dir.path().join("enrolled.txt")).unwrap();
        assert_eq!(enrolled.lines().count(), CALLERS.len());
        assert!(dir.path().join("certs/carrier-swift.pem").exists() && dir.path().join("keyring").exists());
    }

    #[test]
    fn a_folder_of_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(prepared(dir.path()).unwrap_err().message.contains("holds other things"));
        assert_eq!(contents(dir.path()).len(), 1);
    }

    #[test]
    fn a_path_is_one_word_to_the_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b_c.d")), "/tmp/a-b_c.d");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}
