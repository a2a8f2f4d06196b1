//! Who is at the other end. INVARIANT: a `Peer` exists only for a chain the handshake verified and an identity that fits our
//! rules, and `admit` answers for this request, not for the handshake: expiry, revocation and removed CAs count at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::domain::caller::{BadIdentity, Caller, CallerKeys, CertificateHash, SpkiHash};
use crate::domain::time::{SECOND, Timestamp};
use crate::rpc::trust::{Trust, TrustError, TrustSet, provider, read_certificates, timestamp};

/// Why a certificate does not let its bearer in. For our log; the peer sees a closed connection or `UNAUTHENTICATED`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum PeerRefusal {
    NoCertificate,
    Malformed,
    /// A CA's own certificate used as a caller's.
    CaAsLeaf,
    /// Extended key usage without an explicit clientAuth, or with anyExtendedKeyUsage.
    NotClientAuth,
    NoUriSan,
    SeveralUriSans,
    /// A subject alternative name that is neither URI nor DNS, or one that two parsers read differently.
    OddSan,
    BadIdentity(BadIdentity),
    Expired,
    NotYetValid,
    Revoked,
    /// No revocation list speaks for this issuer.
    UnknownRevocation,
    StaleCrl,
    UnknownIssuer,
    /// The CA may not speak for this tenant and role.
    ForeignAnchor,
    BadSignature,
    /// The verifier refused for a reason that has no name here.
    Unverifiable,
}

impl PeerRefusal {
    /// The reason in logs; stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Malformed => "malformed_certificate",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::NotClientAuth => "wrong_eku",
            Self::NoUriSan => "no_uri_san",
            Self::SeveralUriSans => "several_uri_sans",
            Self::OddSan => "odd_san",
            Self::BadIdentity(BadIdentity::Grammar) => "identity_grammar",
            Self::BadIdentity(BadIdentity::ForeignTrustDomain) => "foreign_trust_domain",
            Self::BadIdentity(BadIdentity::UnknownRole) => "unknown_role",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::UnknownRevocation => "unknown_revocation",
            Self::StaleCrl => "stale_crl",
            Self::UnknownIssuer => "unknown_issuer",
            Self::ForeignAnchor => "foreign_anchor",
            Self::BadSignature => "bad_signature",
            Self::Unverifiable => "unverifiable",
        }
    }

    /// The refusal a TLS error stands for, if it is about the peer's certificate.
    pub(super) fn from_tls(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            rustls::Error::InvalidCertificate(error) => Some(Self::from_certificate_error(error)),
            rustls::Error::InvalidCertRevocationList(_) => Some(Self::UnknownRevocation),
            _ => None,
        }
    }

    fn from_certificate_error(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::UnknownRevocation,
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
                Self::StaleCrl
            }
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::NotClientAuth,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::BadEncoding => Self::Malformed,
            CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
                Some(webpki::Error::CaUsedAsEndEntity) => Self::CaAsLeaf,
                _ => Self::Unverifiable,
            },
            _ => Self::Unverifiable,
        }
    }
}

/// The caller behind one connection; shared by all its requests.
pub struct Peer {
    caller: Caller,
    chain: Vec<CertificateDer<'static>>,
    /// The names that issued the chain's certificates, DER: these issuers' revocation lists must be fresh.
    issuers: Vec<Vec<u8>>,
    not_before: Timestamp,
    /// The first instant at which a certificate of the chain has expired.
    expired_at: Timestamp,
    verdict: ArcSwap<Verdict>,
    /// A refusal was logged and nothing has been admitted since.
    logged: AtomicBool,
    /// A request came in.
    came_in: AtomicBool,
}

/// What one trust set's verifier said of the chain.
struct Verdict {
    generation: u64,
    refused: Option<PeerRefusal>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peer")
    }
}

impl Peer {
    /// The peer of a handshake that `set` has just verified.
    pub(super) fn of_handshake(
        chain: &[CertificateDer<'_>],
        trust_domain: &str,
        set: &TrustSet,
        now: Timestamp,
    ) -> Result<Self, PeerRefusal> {
        let leaf = chain.first().ok_or(PeerRefusal::NoCertificate)?;
        let mut peer = Self {
            caller: identify(leaf, trust_domain)?.with_keys(keys(chain, set)?),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            issuers: Vec::with_capacity(chain.len()),
            not_before: Timestamp(i64::MIN),
            expired_at: Timestamp(i64::MAX),
            verdict: ArcSwap::from_pointee(Verdict { generation: set.generation, refused: None }),
            logged: AtomicBool::new(false),
            came_in: AtomicBool::new(false),
        };
        for certificate in chain {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PeerRefusal::Malformed)?;
            peer.issuers.push(parsed.issuer().as_raw().to_vec());
            peer.not_before = peer.not_before.max(timestamp(parsed.validity().not_before));
            // RFC 5280 §4.1.2.5: notAfter is the last second of validity.
            peer.expired_at = peer.expired_at.min(timestamp(parsed.validity().not_after).plus(SECOND));
        }
        peer.in_time(set, now)?;
        set.speaks_for(&peer.caller, &peer.chain, now)?;
        Ok(peer)
    }

    /// Whether this peer may speak now: asked on every request. `now` is the real clock's.
    ///
    /// Costs a few comparisons, and one full verification for each trust set that was loaded since.
    pub fn admit(&self, trust: &Trust, now: Timestamp) -> Result<&Caller, PeerRefusal> {
        let set = trust.set();
        match self.in_time(&set, now).and_then(|()| self.verified(&set, now)) {
            Ok(()) => {
                if self.logged.load(Ordering::Relaxed) {
                    self.logged.store(false, Ordering::Relaxed);
                }
                Ok(&self.caller)
            }
            Err(refusal) => {
                if !self.logged.swap(true, Ordering::Relaxed) {
                    tracing::info!(reason = refusal.as_str(), "a live connection's certificate is no longer good");
                }
                Err(refusal)
            }
        }
    }

    /// `true` once: for the first request that came in.
    pub(super) fn comes_in_first(&self) -> bool {
        !self.came_in.load(Ordering::Relaxed) && !self.came_in.swap(true, Ordering::Relaxed)
    }

    /// Whom the handshake has verified. Whether it may speak now, `admit` says.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The first instant at which a certificate of the chain has expired.
    pub(super) fn good_until(&self) -> Timestamp {
        self.expired_at
    }

    fn in_time(&self, set: &TrustSet, now: Timestamp) -> Result<(), PeerRefusal> {
        if now < self.not_before {
            return Err(PeerRefusal::NotYetValid);
        }
        if now >= self.expired_at {
            return Err(PeerRefusal::Expired);
        }
        match set.fresh_until(&self.issuers) {
            Some(stale_at) if now >= stale_at => Err(PeerRefusal::StaleCrl),
            _ => Ok(()),
        }
    }

    /// The verifier's verdict by this set. Time is `in_time`'s part, so one verdict holds for as long as its set does.
    fn verified(&self, set: &TrustSet, now: Timestamp) -> Result<(), PeerRefusal> {
        let verdict = self.verdict.load();
        let refused = if verdict.generation == set.generation {
            verdict.refused
        } else {
            let verified = set.verify(&self.chain, now);
            let verified = verified.map_err(|error| PeerRefusal::from_tls(&error).unwrap_or(PeerRefusal::Unverifiable));
            let refused = verified.and_then(|()| set.speaks_for(&self.caller, &self.chain, now)).err();
            self.verdict.store(Arc::new(Verdict { generation: set.generation, refused }));
            refused
        };
        refused.map_or(Ok(()), Err)
    }
}

/// The caller of this request, admitted anew. A request that came by another road than our listener has no peer.
pub fn admit<T>(request: &tonic::Request<T>, trust: &Trust, now: Timestamp) -> Result<Caller, PeerRefusal> {
    let peer = request.extensions().get::<Arc<Peer>>().ok_or(PeerRefusal::NoCertificate)?;
    peer.admit(trust, now).cloned()
}

/// SECURITY: the TLS library checks the path; it accepts no EKU, no SAN, several SANs and any URI. These rules are all ours.
fn identify(leaf: &CertificateDer<'_>, trust_domain: &str) -> Result<Caller, PeerRefusal> {
    let (rest, parsed) = X509Certificate::from_der(leaf).map_err(|_| PeerRefusal::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerRefusal::Malformed);
    }
    let usage = parsed.extended_key_usage().map_err(|_| PeerRefusal::Malformed)?;
    if !usage.is_some_and(|usage| usage.value.client_auth && !usage.value.any) {
        return Err(PeerRefusal::NotClientAuth);
    }
    let uri = the_one_uri(&parsed)?;
    // The parser that verified the chain must read the same single URI.
    let verified = webpki::EndEntityCert::try_from(leaf).map_err(|_| PeerRefusal::Malformed)?;
    if !verified.valid_uri_names().eq([uri]) {
        return Err(PeerRefusal::OddSan);
    }
    let hash = CertificateHash(Sha256::digest(leaf).into());
    Caller::from_uri(uri, trust_domain, hash).map_err(PeerRefusal::BadIdentity)
}

/// The leaf's own key, and the one its signature was made with. SECURITY: which certificate issued the leaf is not what the
/// client says by the order of its chain: it is one whose key verifies the leaf's signature, and nobody else's does.
fn keys(chain: &[CertificateDer<'_>], set: &TrustSet) -> Result<CallerKeys, PeerRefusal> {
    let leaf = chain.first().ok_or(PeerRefusal::NoCertificate)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| PeerRefusal::Malformed)?;
    let mut candidates = chain.iter().skip(1).chain(set.roots());
    let issuer = candidates.find_map(|candidate| {
        let (_, ca) = X509Certificate::from_der(candidate).ok()?;
        let is_named = ca.subject().as_raw() == parsed.issuer().as_raw();
        (is_named && signed(&parsed, candidate)).then(|| spki(&ca))
    });
    Ok(CallerKeys { own: spki(&parsed), issuer: issuer.ok_or(PeerRefusal::UnknownIssuer)? })
}

fn signed(leaf: &X509Certificate<'_>, by: &CertificateDer<'_>) -> bool {
    let Ok(by) = webpki::EndEntityCert::try_from(by) else { return false };
    let (message, signature) = (leaf.tbs_certificate.as_ref(), leaf.signature_value.data.as_ref());
    let algorithms = provider().signature_verification_algorithms.all;
    algorithms.iter().any(|algorithm| by.verify_signature(*algorithm, message, signature).is_ok())
}

fn spki(certificate: &X509Certificate<'_>) -> SpkiHash {
    SpkiHash(Sha256::digest(certificate.public_key().raw).into())
}

/// The keys' hashes of the certificates in a PEM file, in order; for whoever enrols by file.
pub fn keys_in(path: &std::path::Path) -> Result<Vec<SpkiHash>, TrustError> {
    let malformed = || TrustError::Malformed { path: path.to_owned(), what: "certificate" };
    let hash = |der: &CertificateDer<'_>| X509Certificate::from_der(der).map(|(_, parsed)| spki(&parsed));
    read_certificates(path)?.iter().map(|der| hash(der).map_err(|_| malformed())).collect()
}

/// The hash of the first certificate in a PEM file.
pub fn certificate_in(path: &std::path::Path) -> Result<CertificateHash, TrustError> {
    let certificates = read_certificates(path)?;
    let first = certificates.first().ok_or(TrustError::Missing { path: path.to_owned(), what: "certificate" })?;
    Ok(CertificateHash(Sha256::digest(first).into()))
}

fn the_one_uri<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, PeerRefusal> {
    let names = leaf.subject_alternative_name().map_err(|_| PeerRefusal::Malformed)?;
    let mut uri = None;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(text) if uri.is_none() => uri = Some(*text),
            GeneralName::URI(_) => return Err(PeerRefusal::SeveralUriSans),
            GeneralName::DNSName(_) => {}
            _ => return Err(PeerRefusal::OddSan),
        }
    }
    uri.ok_or(PeerRefusal::NoUriSan)
}
