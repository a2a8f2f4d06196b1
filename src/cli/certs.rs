//! `strongroom certs`: a development CA, its certificates and its revocation list. INVARIANT: it mints and revokes in one
//! folder and prints paths alone; a production CA takes its place without any change to the vault.

use std::path::PathBuf;

use crate::cli::Failure;
use crate::cli::client::{one_of, print};
use crate::cli::mint::{CertFolder, MintError};
use crate::cli::serve::failed;
use crate::domain::caller::Role;
use crate::domain::id::{CallerName, TenantId};
use crate::domain::time::{Clock, DAY, SystemClock, Timestamp};

/// Mint development certificates: a CA, servers, callers, a revocation list.
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    /// Make the folder with a CA, an empty revocation list and a server's certificate for this machine
    Init {
        #[command(flatten)]
        folder: Folder,
    },
    /// Mint a server's certificate for these host names
    #[command(after_long_help = "Example:\n  strongroom certs server --name edge vault.shop.example 10.0.0.7")]
    Server {
        #[command(flatten)]
        folder: Folder,
        /// The files' name: NAME.pem and NAME-key.pem
        #[arg(long, default_value = "server")]
        name: CallerName,
        /// Host names and IP addresses that callers use
        #[arg(required = true)]
        hosts: Vec<String>,
    },
    /// Mint a caller's certificate: one tenant, one role, one name
    #[command(after_long_help = "\
Example:
  strongroom certs client --tenant kitchenware --role carrier --name swift --days 30")]
    Client {
        #[command(flatten)]
        folder: Folder,
        /// The server's trust_domain
        #[arg(long, default_value = "strongroom.dev", value_parser = trust_domain)]
        trust_domain: String,
        /// The shop
        #[arg(long)]
        tenant: TenantId,
        /// What the certificate may speak as
        #[arg(long, value_parser = one_of(&Role::ALL, Role::as_str))]
        role: Role,
        /// Who, within the role
        #[arg(long)]
        name: CallerName,
        /// How long it is good
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=3650))]
        days: i64,
    },
    /// Revoke a certificate and sign the revocation list anew
    #[command(after_long_help = "\
The server takes it into account at SIGHUP, on connections that live as well.

Example:
  strongroom certs revoke certs/carrier-swift.pem && kill -HUP $(pidof strongroom)")]
    Revoke {
        #[command(flatten)]
        folder: Folder,
        /// The certificate's file
        certificate: PathBuf,
    },
    /// Sign the revocation list anew, before it goes stale after 30 days
    Crl {
        #[command(flatten)]
        folder: Folder,
    },
}

#[derive(clap::Args)]
pub struct Folder {
    /// The folder that holds the CA and all that it issued
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
}

const CRL: &str = "crl.pem";

const HELP: &str = "\
Whoever holds ca-key.pem is every caller: this CA is for development and tests.
certs/README.md says how to use a real CA or SPIRE.

Examples:
  strongroom certs init --dir certs
  strongroom certs client --dir certs --tenant kitchenware --role shop --name backend
  strongroom certs revoke --dir certs certs/shop-backend.pem";

pub fn run(args: Args) -> Result<(), Failure> {
    let made = mint(args, SystemClock::new().now()).map_err(|error| failed("cannot mint", &error))?;
    print(&made.display().to_string())
}

/// Does as asked, and answers what was made.
fn mint(args: Args, now: Timestamp) -> Result<PathBuf, MintError> {
    match args {
        Args::Init { folder: Folder { dir } } => CertFolder::init(&dir, now).map(|_| dir),
        Args::Server { folder: Folder { dir }, name, hosts } => {
            let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
            CertFolder::open(&dir)?.server(name.as_str(), &hosts, now)
        }
        Args::Client { folder: Folder { dir }, trust_domain, tenant, role, name, days } => {
            CertFolder::open(&dir)?.client(&trust_domain, &tenant, role, &name, now, now.plus(days * DAY))
        }
        Args::Revoke { folder: Folder { dir }, certificate } => {
            CertFolder::open(&dir)?.revoke(&certificate, now)?;
            Ok(dir.join(CRL))
        }
        Args::Crl { folder: Folder { dir } } => {
            CertFolder::open(&dir)?.refresh_crl(now)?;
            Ok(dir.join(CRL))
        }
    }
}

/// The SPIFFE-ID standard's grammar, §2.1: a certificate for another could speak to no server.
fn trust_domain(raw: &str) -> Result<String, &'static str> {
    let is_of_the_grammar = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let is_one = (1..=255).contains(&raw.len()) && raw.bytes().all(is_of_the_grammar);
    if is_one { Ok(raw.to_owned()) } else { Err("not a host name like shop.example") }
}
