//! MACs on mutable facts and keyed digests, each under its own subkey of an epoch. INVARIANT: a MAC made for one table, a
//! tag made for one tenant and kind, a digest made for one list of parts is good for no other.

use subtle::ConstantTimeEq;

use crate::crypto::key::Key;
use crate::crypto::keyring::EpochKeys;
use crate::domain::fault::{Fault, planted};
use crate::domain::id::TenantId;

/// HMAC-SHA256 cut to 128 bits. It has no `==`: compare by `verify`, which takes the same time for every answer.
#[derive(Clone, Copy, Debug)]
pub struct Mac([u8; 16]);

impl Mac {
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Binds a row of facts to its table; `canonical` must name the row as well as what it says.
pub fn mac(epoch: &EpochKeys, table: &'static str, canonical: &[u8]) -> Mac {
    Mac(epoch.mac_key().tag(&[table.as_bytes(), canonical]))
}

#[must_use]
pub fn verify(epoch: &EpochKeys, table: &'static str, canonical: &[u8], stored: &Mac) -> bool {
    planted(Fault::MacOff) || mac(epoch, table, canonical).is(stored)
}

/// Authenticates an audit tree head.
pub fn head_mac(epoch: &EpochKeys, canonical: &[u8]) -> Mac {
    Mac(epoch.audit_key().tag(&[b"head", canonical]))
}

#[must_use]
pub fn verify_head(epoch: &EpochKeys, canonical: &[u8], stored: &Mac) -> bool {
    planted(Fault::MacOff) || head_mac(epoch, canonical).is(stored)
}

/// A blind index entry: finds an exact value of one kind within one tenant, and dies with its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IndexTag(pub [u8; 16]);

pub fn index_tag(epoch: &EpochKeys, tenant: &TenantId, kind: &'static str, value: &[u8]) -> IndexTag {
    let parts = [tenant.as_str().as_bytes(), kind.as_bytes(), value];
    if planted(Fault::IndexEternal) {
        return IndexTag(Key::filled(|bytes| *bytes = [0; 32]).tag(&parts));
    }
    IndexTag(epoch.index_key().tag(&parts))
}

/// What an idempotency key remembers of its request: enough to tell another request, nothing to guess values from.
pub fn idempotency_digest(epoch: &EpochKeys, parts: &[&[u8]]) -> [u8; 16] {
    epoch.idempotency_key().tag(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::entropy::SeededEntropy;
    use crate::crypto::keyring::Keyring;
    use crate::crypto::root::RootKey;
    use crate::domain::id::Epoch;
    use crate::domain::time::Timestamp;

    fn two_epochs() -> Keyring {
        let entropy = SeededEntropy::new(1);
        let root = RootKey::generate(&entropy);
        Keyring::create(&root, Timestamp(0), &entropy).with_new_epoch(Timestamp(1), &entropy)
    }

    #[test]
    fn a_mac_holds_for_its_epoch_table_and_bytes_only() {
        let keyring = two_epochs();
        let (new, old) = (keyring.active(), keyring.epoch(Epoch(1)).unwrap());
        let made = Mac::from_bytes(*mac(new, "event", b"row 1").as_bytes());
        assert!(verify(new, "event", b"row 1", &made));
        assert!(!verify(old, "event", b"row 1", &made));
        assert!(!verify(new, "grant", b"row 1", &made));
        assert!(!verify(new, "event", b"row 2", &made));
        assert!(!verify_head(new, b"row 1", &made));
        for bit in 0..128 {
            let mut flipped = *made.as_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(new, "event", b"row 1", &Mac::from_bytes(flipped)), "bit {bit}");
        }
    }

    #[test]
    fn a_head_mac_holds_for_its_epoch_and_head_only() {
        let keyring = two_epochs();
        let made = head_mac(keyring.active(), b"head 1");
        assert!(verify_head(keyring.active(), b"head 1", &made));
        assert!(!verify_head(keyring.active(), b"head 2", &made));
        assert!(!verify_head(keyring.epoch(Epoch(1)).unwrap(), b"head 1", &made));
        assert!(!verify(keyring.active(), "head", b"head 1", &made));
    }

    #[test]
    fn index_tags_meet_only_for_equal_epoch_tenant_kind_and_value() {
        let keyring = two_epochs();
        let (k, x): (TenantId, TenantId) = ("k".parse().unwrap(), "x".parse().unwrap());
        let (new, old) = (keyring.active(), keyring.epoch(Epoch(1)).unwrap());
        let tag = index_tag(new, &k, "phone", b"+49301234567");
        assert_eq!(tag, index_tag(new, &k, "phone", b"+49301234567"));
        for other in [
            index_tag(old, &k, "phone", b"+49301234567"),
            index_tag(new, &x, "phone", b"+49301234567"),
            index_tag(new, &k, "email", b"+49301234567"),
            index_tag(new, &k, "phone", b"+49301234568"),
        ] {
            assert_ne!(tag, other);
        }
    }

    #[test]
    fn the_same_bytes_give_each_use_its_own_tag() {
        let keyring = two_epochs();
        let (epoch, k): (_, TenantId) = (keyring.active(), "k".parse().unwrap());
        let parts: [&[u8]; 3] = [b"k", b"phone", b"1"];
        let index = index_tag(epoch, &k, "phone", b"1").0;
        assert_ne!(index, idempotency_digest(epoch, &parts));
        assert_ne!(idempotency_digest(epoch, &[b"k", b"phone1"]), idempotency_digest(epoch, &[b"kphone", b"1"]));
    }
}
