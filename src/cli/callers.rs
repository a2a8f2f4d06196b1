//! `strongroom callers`: who may come in. INVARIANT: over the wire an administrator acts within its own tenant; the machine's own
//! road (`enrol --config`) needs the store stopped and the root key, and is for the first administrators and for lock-outs.

use std::path::{Path, PathBuf};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::Failure;
use super::client::{self, Connection, one_of, plain_name, print, print_json, print_json_line};
use super::keys::unlock;
use super::serve::{failed, load};
use crate::audit::entry::RequestId;
use crate::config::Config;
use crate::crypto::entropy::{Entropy, OsEntropy, array};
use crate::domain::caller::{CallerId, Role, SpkiHash};
use crate::domain::id::{CallerName, TenantId};
use crate::domain::time::{Clock as _, SystemClock, Timestamp};
use crate::policy::enrolment::{MAX_PINS, PINNED, Pins};
use crate::rpc::identity::{certificate_in, keys_in};
use crate::rpc::proto::caller_service_client::CallerServiceClient;
use crate::rpc::proto::{
    Caller, CallerStanding, EnrolCallerRequest, ListCallersRequest, PendingApproval, ReplacePinsRequest,
    ResumeCallerRequest, SuspendCallerRequest, replace_pins_response, resume_caller_response,
};
use crate::rpc::trust::TrustError;
use crate::store::Store;
use crate::vault::{OnTheMachine, enrol_on_the_machine};

/// Enrol callers, suspend them, let them back, list them.
///
/// A certificate alone lets nobody in: its identity must be enrolled, under its role, with the CA that issues it and, for
/// powerful roles, with the keys it may use.
#[derive(clap::Subcommand)]
#[command(after_long_help = HELP)]
pub enum Args {
    /// Give an identity its authority
    #[command(after_long_help = ENROL_HELP)]
    Enrol(Enrol),
    /// Take it away at once, on live connections too: from a caller, or from one of its certificates
    #[command(after_long_help = "\
Examples:
  strongroom callers suspend --role carrier --name swift
  strongroom callers suspend --role carrier --name swift --certificate certs/carrier-swift.pem")]
    Suspend(OneCertificate),
    /// End a suspension; takes two people
    #[command(after_long_help = TWO_HELP)]
    Resume(OneCertificate),
    /// Set the keys a caller may use, both slots as they shall be; takes two people
    #[command(after_long_help = "\
To renew a key: pin the old and the new one, change over, then pin the new one alone. Each step takes two people.

Example:
  strongroom callers pin --role operator --name oncall --certificate old.pem --certificate new.pem")]
    Pin {
        #[command(flatten)]
        caller: Who,
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        connection: Connection,
    },
    /// List the callers, with the days their certificates have left
    List {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(clap::Args)]
pub struct Enrol {
    #[command(flatten)]
    caller: Who,
    #[command(flatten)]
    keys: Keys,
    /// The CA that issues its certificates, PEM [default: the CA of our own certificate; with --config, the one in tls.roots]
    #[arg(long, value_name = "FILE")]
    issuer: Option<PathBuf>,
    /// Enrol on the machine itself, on the stopped store of this configuration; replaces an enrolment that is there
    #[arg(long, value_name = "FILE", requires = "tenant")]
    config: Option<PathBuf>,
    /// The shop, with --config
    #[arg(long, requires = "config")]
    tenant: Option<TenantId>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub struct OneCertificate {
    #[command(flatten)]
    caller: Who,
    #[command(flatten)]
    certificate: AnyOrOne,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub struct AnyOrOne {
    /// This certificate alone, PEM
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// This certificate alone, by the SHA-256 of its DER in hex
    #[arg(long, value_name = "HEX", conflicts_with = "certificate")]
    certificate_hash: Option<String>,
}

#[derive(clap::Args)]
pub struct Who {
    /// What it may speak as
    #[arg(long, value_parser = one_of(&Role::ALL, Role::as_str))]
    pub(super) role: Role,
    /// The last part of its identity
    #[arg(long)]
    pub(super) name: CallerName,
}

#[derive(clap::Args)]
pub struct Keys {
    /// Pin the key of this certificate, PEM; twice for two
    #[arg(long, value_name = "FILE")]
    certificate: Vec<PathBuf>,
    /// Pin the key with this SHA-256 of its SubjectPublicKeyInfo in hex; twice for two
    #[arg(long, value_name = "HEX")]
    pin: Vec<String>,
}

const HELP: &str = "\
For a key admin's certificate; over the wire it acts in its own tenant.

Examples:
  strongroom callers enrol --role warehouse --name packing
  strongroom callers suspend --role carrier --name swift
  strongroom callers list";

const ENROL_HELP: &str = "\
Key admins, operators and privacy officers need a pinned key: name their certificate.

What takes two people takes two lines of enrolment: nobody approves for whom they enrolled, nor two for each other who were
enrolled by one. So enrol the first two administrators on the machine itself, while the server is stopped; whoever can do
that holds the root key. It is also the way back in when everybody is locked out.

Examples:
  strongroom callers enrol --config strongroom.toml --tenant kitchenware --role key-admin --name anna --certificate anna.pem
  strongroom callers enrol --config strongroom.toml --tenant kitchenware --role operator --name bert --certificate bert.pem
  strongroom callers enrol --role shop --name backend";

const TWO_HELP: &str = "\
Prints the number of an approval. A second person looks at it and agrees; then give the same command again.

Example:
  strongroom callers resume --role carrier --name swift      (prints {\"pending_approval\": \"8f3c...\"})
  strongroom approve show 8f3c... && strongroom approve yes 8f3c...      (the second person)
  strongroom callers resume --role carrier --name swift      (the first again)";

pub fn run(args: Args) -> Result<(), Failure> {
    match args {
        Args::Enrol(Enrol { caller, keys, issuer, config: Some(config), tenant: Some(tenant), .. }) => {
            enrol_here(&load(&config)?, tenant, caller, &keys, issuer.as_deref())
        }
        args => super::client(over_the_wire(args)),
    }
}

/// One caller onto a stopped store.
fn enrol_here(
    config: &Config,
    tenant: TenantId,
    caller: Who,
    keys: &Keys,
    issuer: Option<&Path>,
) -> Result<(), Failure> {
    let cas = keys_in(issuer.unwrap_or(&config.trust.roots)).map_err(unusable)?;
    let &[issuer] = cas.as_slice() else {
        return Err(Failure::usage("there are several CAs: name the one with --issuer FILE"));
    };
    let hashes: Result<Vec<SpkiHash>, Failure> = keys.hashes()?.iter().map(|text| spki_hash(text)).collect();
    let pins = Pins::new(caller.role, hashes?).map_err(|bad| Failure::usage(format!("{bad}: see --certificate")))?;
    let id = CallerId { tenant, role: caller.role, name: caller.name };
    let shown = json!({ "enrolled": id.to_string() });
    enrol_offline(config, vec![OnTheMachine { id, issuer, pins }], SystemClock::new().now(), &OsEntropy)?;
    print_json_line(&shown)
}

/// Enrols on a store that nobody serves.
pub(super) fn enrol_offline(
    config: &Config,
    callers: Vec<OnTheMachine>,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<(), Failure> {
    let keyring = unlock(&config.root, &config.keyring)?.into();
    let what = || format!("cannot enrol in the store {}", config.store.database.display());
    let clock = std::sync::Arc::new(SystemClock::new());
    let store = Store::open(&config.store, keyring, clock).map_err(|error| failed(&what(), &error))?;
    enrol_on_the_machine(&store, callers, RequestId(array(entropy)), now).map_err(|error| failed(&what(), &error))
}

/// What a development CA's own callers are enrolled with: the CA's key, and their own where their role needs it.
pub(super) fn as_minted(id: CallerId, ca: &Path, certificate: &Path) -> Result<OnTheMachine, Failure> {
    let first = |path: &Path| keys_in(path).map(|keys| keys.first().copied());
    let missing = || Failure::local("a certificate is missing");
    let issuer = first(ca).map_err(unusable)?.ok_or_else(missing)?;
    let own = if PINNED.contains(&id.role) { first(certificate).map_err(unusable)? } else { None };
    let pins = Pins::new(id.role, own.into_iter().collect()).map_err(|bad| Failure::local(bad.to_string()))?;
    Ok(OnTheMachine { id, issuer, pins })
}

async fn over_the_wire(args: Args) -> Result<(), Failure> {
    match args {
        Args::Enrol(Enrol { caller, keys, issuer, connection, .. }) => {
            let issuer = match issuer {
                None => String::new(),
                Some(file) => match keys_in(&file).map_err(unusable)?.as_slice() {
                    [one] => hex::encode(one.0),
                    _ => return Err(Failure::usage("--issuer names a file with exactly one certificate")),
                },
            };
            let (role, name, pins) = (wire(caller.role), caller.name.as_str().to_owned(), keys.hashes()?);
            let request = EnrolCallerRequest { role, name, issuer, pins };
            let mut vault = connect(&connection).await?;
            let answer = client::answer(vault.enrol_caller(request)).await?;
            print_json(&answer.caller.as_ref().map(shown))
        }
        Args::Suspend(one) => {
            let certificate = one.certificate.hash()?;
            let (role, name) = (wire(one.caller.role), one.caller.name.as_str().to_owned());
            let request = SuspendCallerRequest { role, name, certificate };
            let mut vault = connect(&one.connection).await?;
            let answer = client::answer(vault.suspend_caller(request)).await?;
            print_json(&answer.caller.as_ref().map(shown))
        }
        Args::Resume(one) => {
            use resume_caller_response::Result::{Done, PendingApproval};
            let certificate = one.certificate.hash()?;
            let (role, name) = (wire(one.caller.role), one.caller.name.as_str().to_owned());
            let request = ResumeCallerRequest { role, name, certificate };
            let mut vault = connect(&one.connection).await?;
            match client::answer(vault.resume_caller(request)).await?.result {
                Some(Done(caller)) => print_json(&shown(&caller)),
                Some(PendingApproval(pending)) => print_pending(&pending),
                None => Err(no_result()),
            }
        }
        Args::Pin { caller, keys, connection } => {
            use replace_pins_response::Result::{Done, PendingApproval};
            let (role, name, pins) = (wire(caller.role), caller.name.as_str().to_owned(), keys.hashes()?);
            let mut vault = connect(&connection).await?;
            match client::answer(vault.replace_pins(ReplacePinsRequest { role, name, pins })).await?.result {
                Some(Done(caller)) => print_json(&shown(&caller)),
                Some(PendingApproval(pending)) => print_pending(&pending),
                None => Err(no_result()),
            }
        }
        Args::List { json, connection } => {
            let mut vault = connect(&connection).await?;
            let callers = client::answer(vault.list_callers(ListCallersRequest {})).await?.callers;
            if json { print_json(&callers.iter().map(shown).collect::<Vec<_>>()) } else { print(&table(&callers)) }
        }
    }
}

async fn connect(connection: &Connection) -> Result<CallerServiceClient<tonic::transport::Channel>, Failure> {
    Ok(CallerServiceClient::new(client::connect(connection).await?))
}

impl Keys {
    /// The keys of the certificates and the keys given by hash, in hex.
    fn hashes(&self) -> Result<Vec<String>, Failure> {
        let mut hashes = self.pin.clone();
        for file in &self.certificate {
            let leaf = keys_in(file).map_err(unusable)?.first().map(|key| hex::encode(key.0));
            hashes.extend(leaf);
        }
        if hashes.len() > MAX_PINS {
            return Err(Failure::usage("a caller has two slots for pins"));
        }
        Ok(hashes)
    }
}

impl AnyOrOne {
    /// The certificate's hash in hex; empty when the caller as a whole is meant.
    pub(super) fn hash(&self) -> Result<String, Failure> {
        match (&self.certificate, &self.certificate_hash) {
            (Some(file), _) => Ok(hex::encode(certificate_in(file).map_err(unusable)?.0)),
            (None, Some(hash)) => Ok(hash.clone()),
            (None, None) => Ok(String::new()),
        }
    }
}

fn spki_hash(text: &str) -> Result<SpkiHash, Failure> {
    let mut hash = [0; 32];
    let decoded = hex::decode_to_slice(text, &mut hash);
    decoded.map(|()| SpkiHash(hash)).map_err(|_| Failure::usage("--pin takes 64 hexadecimal digits"))
}

fn wire(role: Role) -> i32 {
    i32::from(role as u8)
}

fn unusable(error: TrustError) -> Failure {
    failed("cannot use the certificate", &error)
}

fn no_result() -> Failure {
    Failure::refused("the server answered without a result")
}

pub(super) fn print_pending(pending: &PendingApproval) -> Result<(), Failure> {
    let (id, until) = (plain_hex(&pending.approval_id), client::shown(pending.expires_at));
    print_json_line(&json!({ "pending_approval": id, "expires_at": until }))
}

/// What is printed of what a server calls a number.
pub(super) fn plain_hex(text: &str) -> &str {
    if text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) { text } else { "(no number)" }
}

fn shown(caller: &Caller) -> Value {
    let until = client::shown(caller.certificate_good_until);
    let role = u8::try_from(caller.role).ok().and_then(Role::from_code).map(Role::as_str);
    json!({
        "role": role,
        "name": plain_name(&caller.name),
        "suspended": caller.standing() == CallerStanding::Suspended,
        "suspended_certificates": caller.suspended_certificates,
        "issuer": caller.issuer,
        "pins": caller.pins,
        "enrolled_by": if caller.enrolled_by.is_empty() { "the machine" } else { caller.enrolled_by.as_str() },
        "since": client::shown(caller.since),
        "certificate_days_left": until.is_some().then_some(caller.certificate_days_left),
        "certificate_good_until": until,
        "locked_out_until": client::shown(caller.locked_out_until),
    })
}

fn table(callers: &[Caller]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["role", "name", "standing", "pins", "enrolled by", "days left"]);
    for caller in callers {
        let member = shown(caller);
        let text = |key: &str| member.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        let standing = match (caller.standing(), caller.suspended_certificates.len()) {
            (CallerStanding::Suspended, _) => "SUSPENDED".to_owned(),
            _ if caller.locked_out_until.is_some() => format!("LOCKED OUT until {}", text("locked_out_until")),
            (_, 0) => "in force".to_owned(),
            (_, some) => format!("in force, {some} certificates suspended"),
        };
        let days = caller.certificate_days_left;
        let left = match caller.certificate_good_until {
            None => "not seen".to_owned(),
            Some(_) if days < 14 => format!("{days} (SOON)"),
            Some(_) => days.to_string(),
        };
        table.add_row([text("role"), text("name"), standing, caller.pins.len().to_string(), text("enrolled_by"), left]);
    }
    table.to_string()
}
