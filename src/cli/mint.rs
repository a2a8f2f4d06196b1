//! Mints development certificates: a CA, its revocation list, certificates for the server and for scoped callers. INVARIANT:
//! a private key is on disk only in files that nobody else may read, and no key or certificate is ever overwritten.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber,
};
use sha2::{Digest, Sha256};
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use crate::domain::caller::Role;
use crate::domain::id::{CallerName, TenantId};
use crate::domain::time::{DAY, MINUTE, SECOND, Timestamp};

#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("{path}: cannot be read or written")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: exists already; move it away first")]
    Exists { path: PathBuf },
    #[error("{path}: {what}")]
    BadFile { path: PathBuf, what: &'static str },
    #[error("the certificate cannot be minted")]
    Certificate(#[from] rcgen::Error),
}

/// A certificate's serial number, big-endian.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Serial(Vec<u8>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eku {
    Client,
    Server,
    Any,
}

/// What a certificate is to say. The constructors make sound ones; the fields are open so that tests can make others.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub eku: Vec<Eku>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub is_ca: bool,
}

impl LeafSpec {
    /// A caller's certificate with its one identity, valid from shortly before `now` (clocks differ) until `not_after`.
    pub fn client(uri: &str, now: Timestamp, not_after: Timestamp) -> Self {
        Self {
            uris: vec![uri.to_owned()],
            dns: Vec::new(),
            ips: Vec::new(),
            eku: vec![Eku::Client],
            not_before: now.plus(-5 * MINUTE),
            not_after,
            is_ca: false,
        }
    }

    /// A server's certificate for these host names and IP addresses.
    pub fn server(names: &[&str], now: Timestamp, not_after: Timestamp) -> Self {
        Self {
            uris: Vec::new(),
            dns: names.iter().filter(|name| name.parse::<IpAddr>().is_err()).map(ToString::to_string).collect(),
            ips: names.iter().filter_map(|name| name.parse().ok()).collect(),
            eku: vec![Eku::Server],
            ..Self::client("", now, not_after)
        }
    }

    fn names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let uris = self.uris.iter().map(|uri| Ok(SanType::URI(uri.as_str().try_into()?)));
        let dns = self.dns.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        let ips = self.ips.iter().map(|ip| Ok(SanType::IpAddress(*ip)));
        uris.chain(dns).chain(ips).collect()
    }
}

/// A certificate and its key, fresh.
pub struct Leaf {
    pub cert_pem: String,
    pub key_pem: Zeroizing<String>,
    pub serial: Serial,
}

/// A development CA. Its key signs certificates and revocation lists; whoever has it is everyone.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

impl Authority {
    pub fn mint(name: &str, now: Timestamp) -> Result<Self, MintError> {
        let key = new_key()?;
        let mut params = params(name, &key, now, now.plus(3650 * DAY))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), cert_pem })
    }

    /// Reads `ca.pem` and `ca-key.pem`.
    pub fn load(dir: &Path) -> Result<Self, MintError> {
        let cert_pem = read(&dir.join(CA))?;
        let key = KeyPair::from_pem(&Zeroizing::new(read(&dir.join(CA_KEY))?))?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&cert_pem, key)?, cert_pem })
    }

    pub fn save(&self, dir: &Path) -> Result<(), MintError> {
        write_pair(&dir.join(CA), &self.cert_pem, &dir.join(CA_KEY), &Zeroizing::new(self.issuer.key().serialize_pem()))
    }

    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn issue(&self, spec: &LeafSpec) -> Result<Leaf, MintError> {
        let key = new_key()?;
        let mut params = params("strongroom development", &key, spec.not_before, spec.not_after)?;
        params.subject_alt_names = spec.names()?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = if spec.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.extended_key_usages = spec
            .eku
            .iter()
            .map(|usage| match usage {
                Eku::Client => ExtendedKeyUsagePurpose::ClientAuth,
                Eku::Server => ExtendedKeyUsagePurpose::ServerAuth,
                Eku::Any => ExtendedKeyUsagePurpose::Any,
            })
            .collect();
        let cert_pem = params.signed_by(&key, &self.issuer)?.pem();
        let key_pem = Zeroizing::new(key.serialize_pem());
        Ok(Leaf { cert_pem, key_pem, serial: serial(&key) })
    }

    /// A revocation list (RFC 5280 §5) as PEM. Numbers must grow from list to list.
    pub fn crl(
        &self,
        revoked: &[Serial],
        this_update: Timestamp,
        next_update: Timestamp,
        number: u64,
    ) -> Result<String, MintError> {
        let entry = |serial: &Serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial.0),
            revocation_time: rcgen::date_time_ymd(1970, 1, 1) + since_1970(this_update),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(1970, 1, 1) + since_1970(this_update),
            next_update: rcgen::date_time_ymd(1970, 1, 1) + since_1970(next_update),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn params(
    name: &str,
    key: &KeyPair,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial(key).0));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(not_before);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(not_after);
    Ok(params)
}

/// Every certificate has its own fresh key, so the key's digest is as random as the key. One leading byte fixes sign and
/// length (RFC 5280 §4.1.2.2: positive, at most 20 octets).
fn serial(key: &KeyPair) -> Serial {
    let digest = Sha256::digest(key.subject_public_key_info());
    Serial(std::iter::once(0x01).chain(digest.into_iter().take(16)).collect())
}

/// X.509 knows no instant after the year 9999, and we need none before 1970.
fn since_1970(at: Timestamp) -> Duration {
    const END_OF_9999: i64 = 253_402_300_799;
    Duration::from_secs(at.0.div_euclid(SECOND).clamp(0, END_OF_9999).unsigned_abs())
}

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CRL: &str = "crl.pem";
const REVOKED: &str = "revoked.txt";
const CRL_LIFETIME: i64 = 30 * DAY;
const SERVER_LIFETIME: i64 = 365 * DAY;

/// A folder of development certificates: `ca.pem`, `ca-key.pem`, `crl.pem`, `revoked.txt` (hexadecimal serials, one a line),
/// `server.pem`, `server-key.pem`, and `<role>-<name>.pem` with `-key.pem` for every caller.
pub struct CertFolder {
    dir: PathBuf,
    authority: Authority,
}

impl CertFolder {
    /// Makes the folder with a new CA, an empty revocation list and a certificate for a server on this machine.
    pub fn init(dir: &Path, now: Timestamp) -> Result<Self, MintError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_at(dir))?;
        let folder = Self { dir: dir.to_owned(), authority: Authority::mint("Strongroom development CA", now)? };
        folder.authority.save(dir)?;
        folder.refresh_crl(now)?;
        folder.server("server", &["localhost", "127.0.0.1", "::1"], now)?;
        Ok(folder)
    }

    pub fn open(dir: &Path) -> Result<Self, MintError> {
        Ok(Self { dir: dir.to_owned(), authority: Authority::load(dir)? })
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Writes `<stem>.pem` and `<stem>-key.pem` for a server of these names; returns the certificate's path.
    pub fn server(&self, stem: &str, names: &[&str], now: Timestamp) -> Result<PathBuf, MintError> {
        self.write(stem, &self.authority.issue(&LeafSpec::server(names, now, now.plus(SERVER_LIFETIME)))?)
    }

    /// Writes a caller's `<role>-<name>.pem` and `-key.pem`, good until `not_after`; returns the certificate's path.
    pub fn client(
        &self,
        trust_domain: &str,
        tenant: &TenantId,
        role: Role,
        name: &CallerName,
        now: Timestamp,
        not_after: Timestamp,
    ) -> Result<PathBuf, MintError> {
        let (role, name) = (role.as_str(), name.as_str());
        let uri = format!("spiffe://{trust_domain}/tenant/{tenant}/{role}/{name}");
        self.write(&format!("{role}-{name}"), &self.authority.issue(&LeafSpec::client(&uri, now, not_after))?)
    }

    /// Adds the certificate in this file to the revoked ones and writes the list anew.
    pub fn revoke(&self, certificate: &Path, now: Timestamp) -> Result<(), MintError> {
        let serial = self.serial_of_ours(certificate)?;
        let mut revoked = self.revoked()?;
        if !revoked.contains(&serial) {
            revoked.push(serial);
        }
        let lines: String = revoked.iter().map(|serial| hex::encode(&serial.0) + "\n").collect();
        write_private(&self.dir.join(REVOKED), lines.as_bytes())?;
        self.refresh_crl(now)
    }

    /// Signs the revocation list anew; it goes stale 30 days after `now`.
    pub fn refresh_crl(&self, now: Timestamp) -> Result<(), MintError> {
        let number = u64::try_from(now.0).unwrap_or(0);
        let crl = self.authority.crl(&self.revoked()?, now.plus(-5 * MINUTE), now.plus(CRL_LIFETIME), number)?;
        write_private(&self.dir.join(CRL), crl.as_bytes())
    }

    fn write(&self, stem: &str, leaf: &Leaf) -> Result<PathBuf, MintError> {
        let certificate = self.dir.join(format!("{stem}.pem"));
        write_pair(&certificate, &leaf.cert_pem, &self.dir.join(format!("{stem}-key.pem")), &leaf.key_pem)?;
        Ok(certificate)
    }

    fn serial_of_ours(&self, certificate: &Path) -> Result<Serial, MintError> {
        let bad = |what| MintError::BadFile { path: certificate.to_owned(), what };
        let pem = read(certificate)?;
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|_| bad("holds no certificate in PEM"))?;
        let parsed = pem.parse_x509().map_err(|_| bad("the certificate cannot be parsed"))?;
        let (_, ca) = parse_x509_pem(self.authority.cert_pem.as_bytes()).map_err(|_| bad("the CA cannot be parsed"))?;
        let ca = ca.parse_x509().map_err(|_| bad("the CA cannot be parsed"))?;
        if parsed.issuer().as_raw() != ca.subject().as_raw() {
            return Err(bad("this CA did not issue the certificate"));
        }
        Ok(Serial(parsed.raw_serial().to_vec()))
    }

    fn revoked(&self) -> Result<Vec<Serial>, MintError> {
        let path = self.dir.join(REVOKED);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let serials = read(&path)?.lines().map(|line| hex::decode(line).map(Serial)).collect::<Result<_, _>>();
        serials.map_err(|_| MintError::BadFile { path, what: "a line is no serial number in hexadecimal" })
    }
}

fn write_pair(certificate: &Path, cert_pem: &str, key: &Path, key_pem: &str) -> Result<(), MintError> {
    for path in [certificate, key] {
        if path.exists() {
            return Err(MintError::Exists { path: path.to_owned() });
        }
    }
    write_private(key, key_pem.as_bytes())?;
    write_private(certificate, cert_pem.as_bytes())
}

/// Writes a file that only its owner may read, whole or not at all: readers see the old bytes or the new ones.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), MintError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // A file left by a crash may have other permissions; what we write must be a file we made.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_at(&new)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io_at(&new))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_at(&new))?;
    std::fs::rename(&new, path).map_err(io_at(path))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_at(dir))
}

fn read(path: &Path) -> Result<String, MintError> {
    std::fs::read_to_string(path).map_err(io_at(path))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> MintError {
    move |source| MintError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000 * SECOND);

    fn folder() -> (tempfile::TempDir, CertFolder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = CertFolder::init(&dir.path().join("certs"), NOW).unwrap();
        (dir, folder)
    }

    fn swift(folder: &CertFolder) -> Result<PathBuf, MintError> {
        let (tenant, name) = ("k".parse().unwrap(), "swift".parse().unwrap());
        folder.client("shop.test", &tenant, Role::Carrier, &name, NOW, NOW.plus(DAY))
    }

    #[test]
    fn nobody_else_may_read_what_is_minted() {
        let (_dir, folder) = folder();
        swift(&folder).unwrap();
        for name in [CA, CA_KEY, CRL, "server.pem", "server-key.pem", "carrier-swift.pem", "carrier-swift-key.pem"] {
            let mode = std::fs::metadata(folder.dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::metadata(&folder.dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn nothing_minted_is_overwritten() {
        let (_dir, folder) = folder();
        swift(&folder).unwrap();
        assert!(matches!(swift(&folder), Err(MintError::Exists { .. })));
        assert!(matches!(CertFolder::init(&folder.dir, NOW), Err(MintError::Exists { .. })));
    }

    #[test]
    fn revoking_survives_reopening_and_a_refresh() {
        let (_dir, folder) = folder();
        let (server, swift) = (folder.dir.join("server.pem"), swift(&folder).unwrap());
        folder.revoke(&swift, NOW).unwrap();
        CertFolder::open(&folder.dir).unwrap().revoke(&server, NOW.plus(SECOND)).unwrap();
        folder.revoke(&swift, NOW.plus(2 * SECOND)).unwrap();
        folder.refresh_crl(NOW.plus(3 * SECOND)).unwrap();
        let pem = read(&folder.dir.join(CRL)).unwrap();
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, crl) = x509_parser::parse_x509_crl(&pem.contents).unwrap();
        let listed: Vec<Serial> =
            crl.iter_revoked_certificates().map(|entry| Serial(entry.raw_serial().to_vec())).collect();
        let expected = [&swift, &server].map(|path| folder.serial_of_ours(path).unwrap());
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_certificate_of_another_ca_is_not_revoked() {
        let (dir, folder) = folder();
        let stranger = Authority::mint("another CA", NOW).unwrap().issue(&LeafSpec::client("x:y", NOW, NOW.plus(DAY)));
        let path = dir.path().join("stranger.pem");
        write_private(&path, stranger.unwrap().cert_pem.as_bytes()).unwrap();
        assert!(matches!(folder.revoke(&path, NOW), Err(MintError::BadFile { .. })));
    }
}
