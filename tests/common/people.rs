//! People and their certificates: minted by the house's own CA or another, enrolled on the machine or not.

#![allow(dead_code, reason = "every suite uses its part")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a harness that cannot set up has failed its test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use strongroom::audit::entry::{Action, Entry, RefusalCode, RequestId, Verdict};
use strongroom::audit::verify::unpack;
use strongroom::cli::dev::{TENANT, TRUST_DOMAIN};
use strongroom::cli::mint::{Authority, LeafSpec, write_private};
use strongroom::crypto::keyring::{Keyring, peek};
use strongroom::domain::caller::{CallerId, Role, SpkiHash};
use strongroom::domain::time::{Clock as _, DAY, SystemClock};
use strongroom::policy::enrolment::Pins;
use strongroom::rpc::identity::keys_in;
use strongroom::rpc::proto::approval_service_client::ApprovalServiceClient;
use strongroom::rpc::proto::caller_service_client::CallerServiceClient;
use strongroom::store::Store;
use strongroom::vault::{OnTheMachine, enrol_on_the_machine};
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use super::common::House;

pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

pub fn certs(house: &House) -> PathBuf {
    house.data().join("certs")
}

/// Where the house keeps a caller's certificate.
pub fn certificate(house: &House, role: Role, name: &str) -> PathBuf {
    certs(house).join(format!("{}-{name}.pem", role.as_str()))
}

pub fn key_of(house: &House, role: Role, name: &str) -> SpkiHash {
    keys_in(&certificate(house, role, name)).unwrap()[0]
}

pub fn issuer(house: &House) -> SpkiHash {
    keys_in(&certs(house).join("ca.pem")).unwrap()[0]
}

/// A certificate of `authority` with a fresh key, in place of one that is there.
pub fn mint_by(house: &House, authority: &Authority, role: Role, name: &str, days: i64) {
    let now = SystemClock::new().now();
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/{TENANT}/{}/{name}", role.as_str());
    let leaf = authority.issue(&LeafSpec::client(&uri, now, now.plus(days * DAY))).unwrap();
    let files = house.files(role, name);
    write_private(&files.certificate, leaf.cert_pem.as_bytes()).unwrap();
    write_private(&files.key, leaf.key_pem.as_bytes()).unwrap();
}

pub fn mint(house: &House, role: Role, name: &str) {
    mint_by(house, &Authority::load(&certs(house)).unwrap(), role, name, 90);
}

/// A certificate of the house's CA for whichever identity, filed as that of a caller of this role and name.
pub fn mint_as(house: &House, path: &str, (role, name): (Role, &str)) {
    let now = SystemClock::new().now();
    let uri = format!("spiffe://{TRUST_DOMAIN}/{path}");
    let authority = Authority::load(&certs(house)).unwrap();
    let leaf = authority.issue(&LeafSpec::client(&uri, now, now.plus(90 * DAY))).unwrap();
    let files = house.files(role, name);
    write_private(&files.certificate, leaf.cert_pem.as_bytes()).unwrap();
    write_private(&files.key, leaf.key_pem.as_bytes()).unwrap();
}

/// A certificate for another identity with the key of one that is there.
pub fn mint_with_key_of(house: &House, (role, name): (Role, &str), of: (Role, &str)) {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let ca_key = KeyPair::from_pem(&read(&certs(house).join("ca-key.pem"))).unwrap();
    let ca = Issuer::from_ca_cert_pem(&read(&certs(house).join("ca.pem")), ca_key).unwrap();
    let pem = read(&house.files(of.0, of.1).key);
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/{TENANT}/{}/{name}", role.as_str());
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&KeyPair::from_pem(&pem).unwrap(), &ca).unwrap();
    let files = house.files(role, name);
    write_private(&files.certificate, certificate.pem().as_bytes()).unwrap();
    write_private(&files.key, pem.as_bytes()).unwrap();
}

/// Enrols on the machine itself, with these pinned keys. The house must stand still.
pub fn enrol_here(house: &House, role: Role, name: &str, pins: Vec<SpkiHash>) {
    enrol_of(house, &format!("tenant/{TENANT}/{}/{name}", role.as_str()), pins);
}

/// The same for whichever tenant, by the identity's path.
pub fn enrol_of(house: &House, path: &str, pins: Vec<SpkiHash>) {
    let config = &house.config;
    let root = config.root.unlock(&peek(&config.keyring).unwrap().root).unwrap();
    let keyring = Arc::new(Keyring::load(&config.keyring, &root).unwrap());
    let store = Store::open(&config.store, keyring, Arc::new(SystemClock::new())).unwrap();
    let id: CallerId = path.parse().unwrap();
    let caller = OnTheMachine { issuer: issuer(house), pins: Pins::new(id.role, pins).unwrap(), id };
    enrol_on_the_machine(&store, vec![caller], RequestId([0; 16]), SystemClock::new().now()).unwrap();
}

pub fn callers(house: &House, name: &str) -> CallerServiceClient<Channel> {
    CallerServiceClient::new(house.channel(Role::KeyAdmin, name))
}

pub fn approvals(house: &House, role: Role, name: &str) -> ApprovalServiceClient<Channel> {
    ApprovalServiceClient::new(house.channel(role, name))
}

/// The house's keys, opened beside it.
pub fn keyring(house: &House) -> Keyring {
    let root = house.config.root.unlock(&peek(&house.config.keyring).unwrap().root).unwrap();
    Keyring::load(&house.config.keyring, &root).unwrap()
}

/// The whole audit log that is kept.
pub fn log(house: &House) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut each = |batch: strongroom::audit::verify::Batch, _| {
        entries.extend(unpack(&batch.entries).unwrap());
        true
    };
    house.vault().store().audit_batches(&mut each).unwrap();
    entries
}

/// Why calls were refused, in order.
pub fn refusals(house: &House) -> Vec<(Action, RefusalCode)> {
    let code = |entry: Entry| match entry.verdict {
        Verdict::Done => None,
        Verdict::Refused(code) => Some((entry.action, code)),
    };
    log(house).into_iter().filter_map(code).collect()
}
