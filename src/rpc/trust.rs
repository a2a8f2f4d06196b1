//! What the listener trusts: its own certificate, the CAs of its callers, their revocation lists. INVARIANT: a set is used
//! whole or not at all; a set in use has a certificate that fits its key, and one verifiable revocation list for every root.

mod expiry;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, version};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::domain::caller::{Caller, Role};
use crate::domain::id::TenantId;
use crate::domain::time::{SECOND, Timestamp};
use crate::rpc::identity::PeerRefusal;
pub use expiry::Validity;

/// Where the trust material lies; all of it PEM.
#[derive(Clone, Debug)]
pub struct TrustFiles {
    /// The server's chain, leaf first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The CAs that issue callers' certificates.
    pub roots: PathBuf,
    /// Every CA that issues callers' certificates, intermediates included, needs its list here.
    pub crls: Vec<PathBuf>,
    /// The host part of every caller's SPIFFE ID; compared byte for byte.
    pub trust_domain: String,
    /// Whom each root may speak for; empty: every root for everyone. Where any is given, every root needs one.
    pub anchors: Vec<AnchorFile>,
}

/// Some of the roots, and whom they may speak for.
#[derive(Clone, Debug)]
pub struct AnchorFile {
    pub roots: PathBuf,
    pub tenants: Vec<TenantId>,
    pub roles: Vec<Role>,
}

/// Why trust material was not taken into use.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("{path}: cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("a revocation list is past its next update: it would refuse everyone")]
    StaleCrl,
    #[error("{path}: holds no {what} in PEM")]
    Missing { path: PathBuf, what: &'static str },
    #[error("{path}: holds a {what} that cannot be parsed")]
    Malformed { path: PathBuf, what: &'static str },
    #[error("{path}: the certificate and its key cannot be used together")]
    CertificateAndKey { path: PathBuf, source: rustls::Error },
    #[error("no revocation list is given: nobody's revocation status would be known")]
    NoCrl,
    #[error("{path}: a root has no revocation list, so whatever it issued would be refused")]
    RootWithoutCrl { path: PathBuf },
    #[error("{path}: a second revocation list of one issuer; only the first would be consulted")]
    SecondCrl { path: PathBuf },
    #[error("{path}: a revocation list is not signed by the root it names")]
    ForgedCrl { path: PathBuf },
    #[error("{path}: an anchor's root is not among the roots")]
    StrayAnchor { path: PathBuf },
    #[error("{path}: a root is in no anchor: it would speak for nobody")]
    RootWithoutAnchor { path: PathBuf },
    #[error("the client certificate verifier cannot be built")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("the TLS library refuses the configuration")]
    Tls(#[from] rustls::Error),
}

/// The trust set in use. Reloading swaps it whole; connections that live notice by its generation.
pub struct Trust {
    files: TrustFiles,
    set: ArcSwap<TrustSet>,
    reloading: Mutex<()>,
}

/// One consistent reading of the trust files.
pub(super) struct TrustSet {
    pub(super) generation: u64,
    pub(super) server: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    lists: Vec<RevocationList>,
    /// Of the server's own chain.
    own: Option<Validity>,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<Anchor>,
}

/// Some of the roots: a verifier that knows no other, and whom they may speak for.
struct Anchor {
    verifier: Arc<dyn ClientCertVerifier>,
    tenants: Vec<TenantId>,
    roles: Vec<Role>,
}

struct RevocationList {
    /// The issuer's distinguished name, DER.
    issuer: Vec<u8>,
    validity: Validity,
}

impl Trust {
    pub fn load(files: TrustFiles) -> Result<Arc<Self>, TrustError> {
        let set = TrustSet::read(&files, 1)?;
        Ok(Arc::new(Self { files, set: ArcSwap::from_pointee(set), reloading: Mutex::new(()) }))
    }

    /// Reads the files again and returns the new generation. On any error the set in use stays in use.
    /// A revocation list that is stale already (`now` is the real clock's) is such an error: it would shut everyone out.
    pub fn reload(&self, now: Timestamp) -> Result<u64, TrustError> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.set.load().generation.saturating_add(1);
        let set = TrustSet::read(&self.files, generation)?;
        if set.lists.iter().any(|list| list.validity.until <= now) {
            return Err(TrustError::StaleCrl);
        }
        self.set.store(Arc::new(set));
        Ok(generation)
    }

    /// The TLS configuration for connections accepted from now on.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.set.load().server.clone()
    }

    pub fn trust_domain(&self) -> &str {
        &self.files.trust_domain
    }

    pub(super) fn set(&self) -> arc_swap::Guard<Arc<TrustSet>> {
        self.set.load()
    }
}

impl TrustSet {
    fn read(files: &TrustFiles, generation: u64) -> Result<Self, TrustError> {
        let chain = read_certificates(&files.certificate)?;
        let own = Validity::of_chain(&chain);
        let key = read_key(&files.key)?;
        let root_certificates = read_certificates(&files.roots)?;
        let (crls, lists) = read_crls(&files.crls, &root_certificates)?;
        if !every_root_has_a_list(&root_certificates, &lists) {
            return Err(TrustError::RootWithoutCrl { path: files.roots.clone() });
        }

        let anchors = read_anchors(files, &root_certificates, &crls)?;
        let provider = provider();
        // SECURITY: without lists the verifier would not check revocation at all; read_crls returns at least one. Unknown
        // status is refused by default, and so is it for every certificate of the chain.
        let verifier = verifier(&files.roots, root_certificates.clone(), crls)?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain, key)
            .map_err(|source| TrustError::CertificateAndKey { path: files.certificate.clone(), source })?;
        // SECURITY: a resumed session skips the verifier, so an expired or revoked certificate would come in through a ticket.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.max_early_data_size = 0;
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { generation, server: Arc::new(server), verifier, lists, own, roots: root_certificates, anchors })
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Whether a root that this chain leads to may speak for the caller.
    pub(super) fn speaks_for(
        &self,
        caller: &Caller,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<(), PeerRefusal> {
        let covers = |anchor: &&Anchor| anchor.tenants.contains(&caller.tenant) && anchor.roles.contains(&caller.role);
        let leads_to = |anchor: &Anchor| verify(anchor.verifier.as_ref(), chain, now).is_ok();
        let may = self.anchors.is_empty() || self.anchors.iter().filter(covers).any(leads_to);
        if may { Ok(()) } else { Err(PeerRefusal::ForeignAnchor) }
    }

    /// What the handshake verifies: path to a root, validity at `now`, key usage, revocation of the whole chain.
    pub(super) fn verify(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<(), rustls::Error> {
        verify(self.verifier.as_ref(), chain, now)
    }

    /// When the first revocation list of these issuers (names as DER) goes stale.
    pub(super) fn fresh_until(&self, issuers: &[Vec<u8>]) -> Option<Timestamp> {
        self.lists.iter().filter(|list| issuers.contains(&list.issuer)).map(|list| list.validity.until).min()
    }
}

fn verifier(
    path: &Path,
    certificates: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, TrustError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(path, certificates)?, provider());
    Ok(verifier.with_crls(crls).enforce_revocation_expiration().build()?)
}

fn verify(
    verifier: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<(), rustls::Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let seconds = u64::try_from(now.0.div_euclid(SECOND)).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_client_cert(leaf, intermediates, now).map(|_| ())
}

/// Every anchor's roots are among `roots`, and every root is some anchor's.
fn read_anchors(
    files: &TrustFiles,
    roots: &[CertificateDer<'static>],
    crls: &[CertificateRevocationListDer<'static>],
) -> Result<Vec<Anchor>, TrustError> {
    let (mut anchors, mut anchored) = (Vec::new(), Vec::new());
    for AnchorFile { roots: path, tenants, roles } in &files.anchors {
        let certificates = read_certificates(path)?;
        if !certificates.iter().all(|certificate| roots.contains(certificate)) {
            return Err(TrustError::StrayAnchor { path: path.clone() });
        }
        anchored.extend(certificates.iter().cloned());
        let verifier = verifier(path, certificates, crls.to_vec())?;
        anchors.push(Anchor { verifier, tenants: tenants.clone(), roles: roles.clone() });
    }
    if !anchors.is_empty() && !roots.iter().all(|root| anchored.contains(root)) {
        return Err(TrustError::RootWithoutAnchor { path: files.roots.clone() });
    }
    Ok(anchors)
}

pub(super) const ALPN: &[u8] = b"h2";

/// One provider for both ends; post-quantum key exchange first (FIPS 203), then the classical groups.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}

pub(super) fn roots(path: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|_| TrustError::Malformed { path: path.to_owned(), what: "root certificate" })?;
    }
    Ok(Arc::new(roots))
}

pub(super) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    read_pem(path, "certificate")
}

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TrustError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| TrustError::Missing { path: path.to_owned(), what: "private key" })
}

fn read_pem<T: PemObject>(path: &Path, what: &'static str) -> Result<Vec<T>, TrustError> {
    let items = T::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<T>, _>>()
        .map_err(|_| TrustError::Malformed { path: path.to_owned(), what })?;
    if items.is_empty() { Err(TrustError::Missing { path: path.to_owned(), what }) } else { Ok(items) }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.to_owned(), source };
    std::fs::read(path).map(Zeroizing::new).map_err(unreadable)
}

type Crls = (Vec<CertificateRevocationListDer<'static>>, Vec<RevocationList>);

/// At least one list, at most one an issuer. The verifier consults the first list that names the issuer, so that a second one
/// (yesterday's beside today's) would silently decide by the order of files.
fn read_crls(paths: &[PathBuf], roots: &[CertificateDer<'static>]) -> Result<Crls, TrustError> {
    let (mut crls, mut lists, mut issuers) = (Vec::new(), Vec::new(), BTreeSet::new());
    for path in paths {
        for der in read_pem::<CertificateRevocationListDer<'static>>(path, "revocation list")? {
            let malformed = || TrustError::Malformed { path: path.clone(), what: "revocation list" };
            let (_, crl) = CertificateRevocationList::from_der(&der).map_err(|_| malformed())?;
            let issuer = crl.issuer().as_raw().to_vec();
            let validity = Validity::of_list(&crl).ok_or_else(malformed)?;
            if !signed_by_the_root_it_names(&crl, roots) {
                return Err(TrustError::ForgedCrl { path: path.clone() });
            }
            if !issuers.insert(issuer.clone()) {
                return Err(TrustError::SecondCrl { path: path.clone() });
            }
            lists.push(RevocationList { issuer, validity });
            crls.push(der);
        }
    }
    if crls.is_empty() { Err(TrustError::NoCrl) } else { Ok((crls, lists)) }
}

/// A list that names no root is an intermediate's: callers present that certificate, and the verifier checks the list with it.
fn signed_by_the_root_it_names(crl: &CertificateRevocationList<'_>, roots: &[CertificateDer<'static>]) -> bool {
    let mut named = roots.iter().filter(|root| subject(root).as_deref() == Some(crl.issuer().as_raw())).peekable();
    named.peek().is_none() || named.any(|root| signed_by(crl, root))
}

fn signed_by(crl: &CertificateRevocationList<'_>, root: &CertificateDer<'static>) -> bool {
    let Ok(root) = webpki::EndEntityCert::try_from(root) else { return false };
    let (message, signature) = (crl.tbs_cert_list.as_ref(), crl.signature_value.data.as_ref());
    let algorithms = provider().signature_verification_algorithms.all;
    algorithms.iter().any(|algorithm| root.verify_signature(*algorithm, message, signature).is_ok())
}

fn every_root_has_a_list(roots: &[CertificateDer<'static>], lists: &[RevocationList]) -> bool {
    roots.iter().all(|root| {
        let subject = subject(root);
        lists.iter().any(|list| Some(list.issuer.as_slice()) == subject.as_deref())
    })
}

/// The subject's distinguished name, DER.
fn subject(certificate: &CertificateDer<'static>) -> Option<Vec<u8>> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed.subject().as_raw().to_vec())
}

pub(super) fn timestamp(at: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp(at.timestamp().saturating_mul(SECOND))
}
