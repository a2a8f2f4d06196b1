//! The places that sealed bytes belong to, as associated data. INVARIANT: two different slots never encode alike: each
//! encoding starts with its own domain tag, variable parts carry their length, and choices carry their discriminant.

use crate::domain::id::{DekId, Epoch, GrantId, HoldId, PolicyVersion, RecordId, Revision, SubjectId, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Class, Field};

/// What a DEK is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DekUse {
    /// The fields of one revision of a record.
    Revision(Revision),
    /// One shipment grant's serial.
    Grant(GrantId),
    /// A data subject's tag in the audit log.
    Subject,
    /// Telling subjects apart while one month of statistics is open.
    Month(i64),
}

/// Where a wrapped DEK belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrapSlot<'a> {
    pub epoch: Epoch,
    pub dek: DekId,
    pub tenant: &'a TenantId,
    pub record: RecordId,
    pub subject: SubjectId,
    pub dek_use: DekUse,
    pub class: Option<Class>,
    pub policy_version: PolicyVersion,
    pub stored_at: Timestamp,
}

impl WrapSlot<'_> {
    /// The associated data of the wrap; `format` is the wrapped bytes' own format byte.
    pub fn aad(&self, format: u8) -> Canonical {
        let (discriminant, number) = match self.dek_use {
            DekUse::Revision(Revision(number)) => (1, i64::from(number)),
            DekUse::Grant(GrantId(number)) => (2, number),
            DekUse::Subject => (3, 0),
            DekUse::Month(number) => (4, number),
        };
        Canonical::new("strongroom/wrap")
            .u8(format)
            .u64(u64::from(self.epoch.0))
            .i64(self.dek.0)
            .bytes(self.tenant.as_str().as_bytes())
            .i64(self.record.0)
            .i64(self.subject.0)
            .u8(discriminant)
            .i64(number)
            // SECURITY: codes start at 1, so 0 is free to say "no class".
            .u8(self.class.map_or(0, Class::code))
            .bytes(&self.policy_version.0)
            .i64(self.stored_at.0)
    }
}

/// Which value of a record is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Field(Field),
    Token,
    Serial(GrantId),
    CustomerReference,
    /// What a legal hold names as its case.
    Case(HoldId),
}

/// Where a sealed value belongs. The epoch is no part of it, so that rewrapping a DEK touches no sealed value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealSlot<'a> {
    pub tenant: &'a TenantId,
    pub record: RecordId,
    pub part: Part,
    pub revision: Revision,
    pub dek: DekId,
}

impl SealSlot<'_> {
    /// The associated data of the seal; `format` is the sealed bytes' own format byte.
    pub fn aad(&self, format: u8) -> Canonical {
        let (discriminant, number) = match self.part {
            Part::Field(field) => (1, i64::from(field.code())),
            Part::Token => (2, 0),
            Part::Serial(GrantId(number)) => (3, number),
            Part::CustomerReference => (4, 0),
            Part::Case(HoldId(number)) => (5, number),
        };
        Canonical::new("strongroom/seal")
            .u8(format)
            .bytes(self.tenant.as_str().as_bytes())
            .i64(self.record.0)
            .u8(discriminant)
            .i64(number)
            .u64(u64::from(self.revision.0))
            .i64(self.dek.0)
    }
}

/// Canonical bytes: big-endian integers, byte strings behind their length, a domain tag in front. Within one tag the
/// order of the parts must be fixed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canonical(Vec<u8>);

impl Canonical {
    pub fn new(tag: &'static str) -> Self {
        Self(Vec::with_capacity(192)).bytes(tag.as_bytes())
    }

    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    #[must_use]
    pub fn u8(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    #[must_use]
    pub fn i64(mut self, number: i64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Slots for the tests of this file and of the envelope.
#[cfg(test)]
pub mod samples {
    use super::*;
    use std::sync::LazyLock;

    pub static TENANTS: LazyLock<Vec<TenantId>> =
        LazyLock::new(|| ["a", "aa", "a-", "b"].iter().map(|name| name.parse().unwrap()).collect());

    pub fn seal_slot() -> SealSlot<'static> {
        SealSlot {
            tenant: &TENANTS[0],
            record: RecordId(7),
            part: Part::Field(Field::Phone),
            revision: Revision(1),
            dek: DekId(70),
        }
    }

    /// `seal_slot` with each component changed in turn.
    pub fn other_seal_slots() -> Vec<SealSlot<'static>> {
        let slot = seal_slot();
        let mut others = vec![
            SealSlot { tenant: &TENANTS[1], ..slot },
            SealSlot { record: RecordId(8), ..slot },
            SealSlot { revision: Revision(2), ..slot },
            SealSlot { dek: DekId(71), ..slot },
        ];
        let parts = [Part::Token, Part::CustomerReference, Part::Serial(GrantId(4)), Part::Field(Field::Email)];
        others.extend(parts.map(|part| SealSlot { part, ..slot }));
        others
    }

    pub fn wrap_slot() -> WrapSlot<'static> {
        WrapSlot {
            epoch: Epoch(1),
            dek: DekId(70),
            tenant: &TENANTS[0],
            record: RecordId(7),
            subject: SubjectId(3),
            dek_use: DekUse::Revision(Revision(1)),
            class: Some(Class::Order),
            policy_version: PolicyVersion([9; 32]),
            stored_at: Timestamp(1_000),
        }
    }

    /// `wrap_slot` with each component but the epoch changed in turn.
    pub fn other_wrap_slots() -> Vec<WrapSlot<'static>> {
        let slot = wrap_slot();
        vec![
            WrapSlot { dek: DekId(71), ..slot },
            WrapSlot { tenant: &TENANTS[1], ..slot },
            WrapSlot { record: RecordId(8), ..slot },
            WrapSlot { subject: SubjectId(4), ..slot },
            WrapSlot { dek_use: DekUse::Revision(Revision(2)), ..slot },
            WrapSlot { dek_use: DekUse::Grant(GrantId(1)), ..slot },
            WrapSlot { dek_use: DekUse::Subject, ..slot },
            WrapSlot { class: Some(Class::Case), ..slot },
            WrapSlot { class: None, ..slot },
            WrapSlot { policy_version: PolicyVersion([8; 32]), ..slot },
            WrapSlot { stored_at: Timestamp(1_001), ..slot },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;
    use proptest::prelude::*;

    fn tenant() -> impl Strategy<Value = &'static TenantId> {
        (0..TENANTS.len()).prop_map(|index| &TENANTS[index])
    }

    /// Small numbers collide often, large ones reach the edges.
    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![0..3_i64, Just(i64::MAX), Just(i64::MIN), any::<i64>()]
    }

    fn any_seal_slot() -> impl Strategy<Value = SealSlot<'static>> {
        let part = prop_oneof![
            prop::sample::select(Field::ALL).prop_map(Part::Field),
            Just(Part::Token),
            number().prop_map(|number| Part::Serial(GrantId(number))),
            Just(Part::CustomerReference),
            number().prop_map(|number| Part::Case(HoldId(number))),
        ];
        (tenant(), number(), part, 0..3_u32, number()).prop_map(|(tenant, record, part, revision, dek)| SealSlot {
            tenant,
            record: RecordId(record),
            part,
            revision: Revision(revision),
            dek: DekId(dek),
        })
    }

    fn any_wrap_slot() -> impl Strategy<Value = WrapSlot<'static>> {
        let dek_use = prop_oneof![
            any::<u32>().prop_map(|number| DekUse::Revision(Revision(number))),
            number().prop_map(|number| DekUse::Grant(GrantId(number))),
            Just(DekUse::Subject),
            number().prop_map(DekUse::Month),
        ];
        let class = prop::option::of(prop::sample::select(Class::ALL));
        let ids = (0..3_u32, number(), tenant(), number(), number());
        (ids, dek_use, class, 0..3_u8, number()).prop_map(
            |((epoch, dek, tenant, record, subject), dek_use, class, version, stored_at)| WrapSlot {
                epoch: Epoch(epoch),
                dek: DekId(dek),
                tenant,
                record: RecordId(record),
                subject: SubjectId(subject),
                dek_use,
                class,
                policy_version: PolicyVersion([version; 32]),
                stored_at: Timestamp(stored_at),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The second slot takes a random choice of its components from the first, so that near misses are common.
        #[test]
        fn seal_slots_encode_alike_only_when_they_are_alike(
            a in any_seal_slot(), b in any_seal_slot(), same in any::<[bool; 5]>(), formats in (0..2_u8, 0..2_u8),
        ) {
            let b = SealSlot {
                tenant: if same[0] { a.tenant } else { b.tenant },
                record: if same[1] { a.record } else { b.record },
                part: if same[2] { a.part } else { b.part },
                revision: if same[3] { a.revision } else { b.revision },
                dek: if same[4] { a.dek } else { b.dek },
            };
            prop_assert_eq!(a.aad(formats.0) == b.aad(formats.1), (a, formats.0) == (b, formats.1));
        }

        #[test]
        fn wrap_slots_encode_alike_only_when_they_are_alike(
            a in any_wrap_slot(), b in any_wrap_slot(), same in any::<[bool; 9]>(), formats in (0..2_u8, 0..2_u8),
        ) {
            let b = WrapSlot {
                epoch: if same[0] { a.epoch } else { b.epoch },
                dek: if same[1] { a.dek } else { b.dek },
                tenant: if same[2] { a.tenant } else { b.tenant },
                record: if same[3] { a.record } else { b.record },
                subject: if same[4] { a.subject } else { b.subject },
                dek_use: if same[5] { a.dek_use } else { b.dek_use },
                class: if same[6] { a.class } else { b.class },
                policy_version: if same[7] { a.policy_version } else { b.policy_version },
                stored_at: if same[8] { a.stored_at } else { b.stored_at },
            };
            prop_assert_eq!(a.aad(formats.0) == b.aad(formats.1), (a, formats.0) == (b, formats.1));
        }

        #[test]
        fn a_seal_slot_never_encodes_as_a_wrap_slot(seal in any_seal_slot(), wrap in any_wrap_slot()) {
            prop_assert_ne!(seal.aad(1), wrap.aad(1));
        }

        #[test]
        fn byte_strings_do_not_run_into_each_other(
            a in prop::collection::vec(prop::collection::vec(0..2_u8, 0..3), 0..4),
            b in prop::collection::vec(prop::collection::vec(0..2_u8, 0..3), 0..4),
        ) {
            let encode = |list: &[Vec<u8>]| list.iter().fold(Canonical::new("t"), |to, bytes| to.bytes(bytes));
            prop_assert_eq!(encode(&a) == encode(&b), a == b);
        }
    }

    #[test]
    fn the_seal_encoding_is_frozen() {
        let expected = concat!(
            "000000000000000f",
            "7374726f6e67726f6f6d2f7365616c",
            "01",
            "0000000000000001",
            "61",
            "0000000000000007",
            "01",
            "0000000000000004",
            "0000000000000001",
            "0000000000000046"
        );
        assert_eq!(hex::encode(seal_slot().aad(1).as_bytes()), expected);
    }
}
