//! Who calls. INVARIANT: a `Caller` exists only for a URI that fits the grammar
//! `spiffe://<trust-domain>/tenant/<tenant>/<role>/<name>` to the byte; there is no normalisation, so there is no second
//! spelling of anyone (SPIFFE-ID standard, §2).

use crate::domain::id::{BadName, CallerName, TenantId};

/// What a certificate may speak as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// The shop's own backend.
    Shop = 1,
    /// A logistics partner.
    Carrier = 2,
    /// Packs parcels and prints labels.
    Warehouse = 3,
    /// Answers customers about their after-sales cases.
    CustomerService = 4,
    /// Audits payments and refunds.
    Finance = 5,
    /// Answers data-subject requests.
    PrivacyOfficer = 6,
    /// Runs the machine; sees no personal data.
    Operator = 7,
    /// Reads and verifies the log; sees no personal data.
    Auditor = 8,
    /// Rotates keys; sees no personal data.
    KeyAdmin = 9,
}

impl Role {
    pub const ALL: [Role; 9] = [
        Role::Shop,
        Role::Carrier,
        Role::Warehouse,
        Role::CustomerService,
        Role::Finance,
        Role::PrivacyOfficer,
        Role::Operator,
        Role::Auditor,
        Role::KeyAdmin,
    ];

    /// The role's segment in a SPIFFE ID.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Shop => "shop",
            Role::Carrier => "carrier",
            Role::Warehouse => "warehouse",
            Role::CustomerService => "customer-service",
            Role::Finance => "finance",
            Role::PrivacyOfficer => "privacy-officer",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
            Role::KeyAdmin => "key-admin",
        }
    }

    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == raw)
    }

    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u8 == code)
    }
}

/// SHA-256 of the leaf certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CertificateHash(pub [u8; 32]);

/// SHA-256 of a public key (SubjectPublicKeyInfo, DER; RFC 7469 §2.4): it outlives the certificates that carry the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpkiHash(pub [u8; 32]);

/// The keys behind a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallerKeys {
    /// What the certificate certifies.
    pub own: SpkiHash,
    /// What the CA signed it with.
    pub issuer: SpkiHash,
}

/// Who a caller is, whatever certificate it shows: enrolments, grants and approvals key on this. As text, the path of its
/// SPIFFE ID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallerId {
    pub tenant: TenantId,
    pub role: Role,
    pub name: CallerName,
}

impl std::fmt::Display for CallerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tenant/{}/{}/{}", self.tenant, self.role.as_str(), self.name.as_str())
    }
}

impl std::str::FromStr for CallerId {
    type Err = BadIdentity;
    fn from_str(path: &str) -> Result<Self, BadIdentity> {
        let mut segments = path.split('/');
        if segments.next() != Some("tenant") {
            return Err(BadIdentity::Grammar);
        }
        let tenant = segments.next().ok_or(BadIdentity::Grammar)?.parse()?;
        let role = Role::parse(segments.next().ok_or(BadIdentity::Grammar)?).ok_or(BadIdentity::UnknownRole)?;
        let name = segments.next().ok_or(BadIdentity::Grammar)?.parse()?;
        if segments.next().is_some() {
            return Err(BadIdentity::Grammar);
        }
        Ok(Self { tenant, role, name })
    }
}

/// An authenticated caller: the only source of tenant and role for everything below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub tenant: TenantId,
    pub role: Role,
    pub name: CallerName,
    pub certificate: CertificateHash,
    /// `None` for a caller that came by another road than a handshake: it is nobody's second person.
    pub keys: Option<CallerKeys>,
}

/// Why a URI is no identity of ours. For the log; the peer sees a closed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    #[error("the URI is not spiffe://<trust-domain>/tenant/<tenant>/<role>/<name>")]
    Grammar,
    #[error("the URI's trust domain is not ours")]
    ForeignTrustDomain,
    #[error("the URI's role is unknown")]
    UnknownRole,
}

impl From<BadName> for BadIdentity {
    fn from(_: BadName) -> Self {
        BadIdentity::Grammar
    }
}

impl Caller {
    /// Parses a certificate's one URI SAN. `trust_domain` is compared byte for byte.
    pub fn from_uri(uri: &str, trust_domain: &str, certificate: CertificateHash) -> Result<Self, BadIdentity> {
        let rest = uri.strip_prefix("spiffe://").ok_or(BadIdentity::Grammar)?;
        let (domain, path) = rest.split_once('/').ok_or(BadIdentity::Grammar)?;
        if domain != trust_domain {
            return Err(BadIdentity::ForeignTrustDomain);
        }
        let CallerId { tenant, role, name } = path.parse()?;
        Ok(Self { tenant, role, name, certificate, keys: None })
    }

    #[must_use]
    pub fn with_keys(self, keys: CallerKeys) -> Self {
        Self { keys: Some(keys), ..self }
    }

    pub fn id(&self) -> CallerId {
        CallerId { tenant: self.tenant.clone(), role: self.role, name: self.name.clone() }
    }

    /// The SPIFFE path that grants, budgets and logs key on (a renewed certificate keeps it).
    pub fn path(&self) -> String {
        format!("tenant/{}/{}/{}", self.tenant, self.role.as_str(), self.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: CertificateHash = CertificateHash([0; 32]);

    #[test]
    fn one_spelling_of_an_identity_is_accepted() {
        let caller = Caller::from_uri("spiffe://shop.test/tenant/k/carrier/swift", "shop.test", HASH).unwrap();
        assert_eq!((caller.tenant.as_str(), caller.role, caller.name.as_str()), ("k", Role::Carrier, "swift"));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for bad in [
            "",
            "spiffe://shop.test",
            "spiffe://shop.test/",
            "spiffe://shop.test/tenant/k/carrier",
            "spiffe://shop.test/tenant/k/carrier/",
            "spiffe://shop.test/tenant/k/carrier/swift/",
            "spiffe://shop.test/tenant/k/carrier/swift/x",
            "spiffe://shop.test//tenant/k/carrier/swift",
            "spiffe://shop.test/tenant/k/../k/carrier/swift",
            "spiffe://shop.test/tenant/k/Carrier/swift",
            "spiffe://shop.test/tenant/K/carrier/swift",
            "spiffe://shop.test/tenant/k/root/swift",
            "spiffe://shop.test/tenant/k/carrier/swift?x",
            "spiffe://shop.test/tenant/k/carrier/swift#x",
            "spiffe://shop.test/tenant/k/carrier/sw%69ft",
            "spiffe://shop.test/tenant/k/carrier/swift\0",
            "spiffe://Shop.test/tenant/k/carrier/swift",
            "spiffe://shop.test.evil/tenant/k/carrier/swift",
            "spiffe://shop.test:443/tenant/k/carrier/swift",
            "spiffe://u@shop.test/tenant/k/carrier/swift",
            "SPIFFE://shop.test/tenant/k/carrier/swift",
            "https://shop.test/tenant/k/carrier/swift",
        ] {
            assert!(Caller::from_uri(bad, "shop.test", HASH).is_err(), "{bad}");
        }
    }
}
