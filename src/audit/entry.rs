//! One line of the audit log. INVARIANT: an entry has exactly one byte form, `from_bytes` takes no other, and every part of
//! it is ours or certified: codes, times, the names in a certificate, tags that die with their subject.

mod codes;
pub mod glance;

use crate::domain::caller::{Caller, Role};
use crate::domain::id::{CallerName, Epoch, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Class, Field, Outcome, Purpose};
pub use codes::{Action, RefusalCode};
use std::fmt;

const FORMAT: u8 = 1;
/// Set in the format of an entry that tells whom it is about.
const WHOM: u8 = 0x10;
/// Set in the format of an entry that stands for several.
const COUNT: u8 = 0x20;

/// One request's number, drawn by the vault, never by the client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A data subject on one UTC day: equal for equal subjects as long as the subject's key lives, and nothing afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SubjectTag(pub [u8; 16]);

impl fmt::Display for SubjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Who acted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Actor {
    /// A certificate's holder; the hash is the first 8 bytes of SHA-256 of the certificate's DER.
    Caller { role: Role, name: CallerName, certificate: [u8; 8] },
    /// The vault itself: sweeper, start, restore.
    Vault,
}

impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = caller.certificate.0;
        Actor::Caller { role: caller.role, name: caller.name.clone(), certificate: [a, b, c, d, e, f, g, h] }
    }
}

/// Whom an administrator's act is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom {
    /// Of the entry's tenant.
    Caller { role: Role, name: CallerName },
    /// One of the caller's certificates, by the first 8 bytes of its hash.
    Certificate { role: Role, name: CallerName, certificate: [u8; 8] },
    /// Nobody: a key epoch, and how many rows lay under it.
    Epoch { epoch: Epoch, rows: u64 },
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Done,
    Refused(RefusalCode),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub at: Timestamp,
    pub request: RequestId,
    pub tenant: TenantId,
    pub actor: Actor,
    pub action: Action,
    pub class: Option<Class>,
    pub purpose: Option<Purpose>,
    pub verdict: Verdict,
    /// What became of every field that was asked for.
    pub outcomes: Vec<(Field, Outcome)>,
    pub subject: Option<SubjectTag>,
    pub whom: Option<Whom>,
    /// How many it stands for, where they are counted instead of listed.
    pub count: Option<u32>,
}

impl Entry {
    /// The canonical bytes: format, then the fields in order of declaration; integers big-endian, text and lists behind
    /// their length, 0 for what is absent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let flag = |is_there, flag| if is_there { flag } else { 0 };
        out.push(FORMAT | flag(self.whom.is_some(), WHOM) | flag(self.count.is_some(), COUNT));
        out.extend_from_slice(&self.at.0.to_be_bytes());
        out.extend_from_slice(&self.request.0);
        put(&mut out, self.tenant.as_str().as_bytes());
        match &self.actor {
            Actor::Vault => out.push(0),
            Actor::Caller { role, name, certificate } => {
                out.push(*role as u8);
                put(&mut out, name.as_str().as_bytes());
                out.extend_from_slice(certificate);
            }
        }
        out.push(self.action.code());
        out.push(self.class.map_or(0, Class::code));
        out.push(self.purpose.map_or(0, Purpose::code));
        out.push(match self.verdict {
            Verdict::Done => 0,
            Verdict::Refused(code) => code.code(),
        });
        let outcomes: Vec<u8> = self.outcomes.iter().flat_map(|(field, what)| [field.code(), what.code()]).collect();
        put(&mut out, &outcomes);
        match self.subject {
            None => out.push(0),
            Some(tag) => {
                out.push(1);
                out.extend_from_slice(&tag.0);
            }
        }
        if let Some(Whom::Epoch { epoch, rows }) = &self.whom {
            // No role has this code.
            out.push(0);
            out.extend_from_slice(&epoch.0.to_be_bytes());
            out.extend_from_slice(&rows.to_be_bytes());
        }
        if let Some(Whom::Caller { role, name } | Whom::Certificate { role, name, .. }) = &self.whom {
            out.push(*role as u8);
            put(&mut out, name.as_str().as_bytes());
            put(&mut out, if let Some(Whom::Certificate { certificate, .. }) = &self.whom { certificate } else { &[] });
        }
        if let Some(count) = self.count {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let entry = reader.entry()?;
        reader.0.is_empty().then_some(entry)
    }
}

/// Appends `bytes` behind their length (u32). Nothing in the log comes near 4 GiB; if it did, it would not verify.
pub(super) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// What is left to read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// What `put` wrote.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn name<T: std::str::FromStr>(&mut self) -> Option<T> {
        std::str::from_utf8(self.bytes()?).ok()?.parse().ok()
    }

    /// A code, or 0 for nothing; the outer `None` is a code that nobody has.
    fn code<T>(&mut self, from_code: fn(u8) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            code => from_code(code).map(Some),
        }
    }

    fn entry(&mut self) -> Option<Entry> {
        let format = self.byte()?;
        if format & !(WHOM | COUNT) != FORMAT {
            return None;
        }
        // Evaluated in the order written, which is the order of the bytes.
        Some(Entry {
            at: Timestamp(i64::from_be_bytes(self.array()?)),
            request: RequestId(self.array()?),
            tenant: self.name()?,
            actor: match self.code(Role::from_code)? {
                None => Actor::Vault,
                Some(role) => Actor::Caller { role, name: self.name()?, certificate: self.array()? },
            },
            action: Action::from_code(self.byte()?)?,
            class: self.code(Class::from_code)?,
            purpose: self.code(Purpose::from_code)?,
            verdict: self.code(RefusalCode::from_code)?.map_or(Verdict::Done, Verdict::Refused),
            outcomes: outcomes(self.bytes()?)?,
            subject: match self.byte()? {
                0 => None,
                1 => Some(SubjectTag(self.array()?)),
                _ => return None,
            },
            whom: if format & WHOM == 0 { None } else { Some(self.whom()?) },
            count: if format & COUNT == 0 { None } else { Some(u32::from_be_bytes(self.array()?)) },
        })
    }

    fn whom(&mut self) -> Option<Whom> {
        let Some(role) = self.code(Role::from_code)? else {
            return Some(Whom::Epoch {
                epoch: Epoch(u32::from_be_bytes(self.array()?)),
                rows: u64::from_be_bytes(self.array()?),
            });
        };
        let name = self.name()?;
        match self.bytes()? {
            [] => Some(Whom::Caller { role, name }),
            certificate => Some(Whom::Certificate { role, name, certificate: certificate.try_into().ok()? }),
        }
    }
}

fn outcomes(bytes: &[u8]) -> Option<Vec<(Field, Outcome)>> {
    let (pairs, []) = bytes.as_chunks::<2>() else { return None };
    pairs.iter().map(|[field, outcome]| Some((Field::from_code(*field)?, Outcome::from_code(*outcome)?))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any entry at all.
    pub fn any_entry() -> impl Strategy<Value = Entry> {
        use proptest::option::of;
        use proptest::sample::select;
        let actor = prop_oneof![
            Just(Actor::Vault),
            (select(&Role::ALL[..]), "[a-z][a-z0-9-]{0,62}", any::<[u8; 8]>()).prop_map(|(role, name, certificate)| {
                Actor::Caller { role, name: name.parse().unwrap(), certificate }
            }),
        ];
        let verdict = of(select(RefusalCode::ALL)).prop_map(|code| code.map_or(Verdict::Done, Verdict::Refused));
        let outcomes = proptest::collection::vec((select(Field::ALL), select(Outcome::ALL)), 0..9);
        let certificate = of(any::<[u8; 8]>());
        let epoch = (any::<u32>(), any::<u64>()).prop_map(|(epoch, rows)| Whom::Epoch { epoch: Epoch(epoch), rows });
        let caller =
            (select(&Role::ALL[..]), "[a-z][a-z0-9-]{0,62}", certificate).prop_map(|(role, name, certificate)| {
                let name = name.parse().unwrap();
                match certificate {
                    None => Whom::Caller { role, name },
                    Some(certificate) => Whom::Certificate { role, name, certificate },
                }
            });
        let whom = prop_oneof![caller, epoch];
        let what = (select(Action::ALL), of(select(Class::ALL)), of(select(Purpose::ALL)), verdict, outcomes);
        let rest = (of(any::<[u8; 16]>()), of(whom), of(any::<u32>()));
        (any::<i64>(), any::<[u8; 16]>(), "[a-z][a-z0-9-]{0,62}", actor, what, rest).prop_map(
            |(at, request, tenant, actor, (action, class, purpose, verdict, outcomes), (subject, whom, count))| Entry {
                at: Timestamp(at),
                request: RequestId(request),
                tenant: tenant.parse().unwrap(),
                actor,
                action,
                class,
                purpose,
                verdict,
                outcomes,
                subject: subject.map(SubjectTag),
                whom,
                count,
            },
        )
    }

    /// A carrier's read, different for every `n`.
    pub fn sample(n: u8) -> Entry {
        Entry {
            at: Timestamp(i64::from(n)),
            request: RequestId([n; 16]),
            tenant: "kitchen".parse().unwrap(),
            actor: Actor::Caller { role: Role::Carrier, name: "swift".parse().unwrap(), certificate: [7; 8] },
            action: Action::GetDelivery,
            class: Some(Class::Order),
            purpose: Some(Purpose::Delivery),
            verdict: Verdict::Done,
            outcomes: vec![(Field::Address, Outcome::Granted)],
            subject: Some(SubjectTag([9; 16])),
            whom: None,
            count: None,
        }
    }

    proptest! {
        #[test]
        fn bytes_lead_back_to_the_entry(entry in any_entry()) {
            prop_assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
        }

        #[test]
        fn every_other_spelling_is_another_entry_or_none(entry in any_entry(), at: proptest::sample::Index, flip in 1..=255u8) {
            let mut bytes = entry.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Some(other) = Entry::from_bytes(&bytes) {
                prop_assert_ne!(&other, &entry);
                prop_assert_eq!(other.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn the_byte_form_does_not_change() {
        let expected = concat!(
            "01",
            "0000000000000001",
            "01010101010101010101010101010101",
            "00000007",
            "6b69746368656e",
            "02",
            "00000005",
            "7377696674",
            "0707070707070707",
            "09",
            "01",
            "02",
            "00",
            "00000002",
            "0301",
            "01",
            "09090909090909090909090909090909",
        );
        assert_eq!(hex::encode(sample(1).to_bytes()), expected);
    }

    #[test]
    fn whom_an_entry_is_about_is_told_at_its_end() {
        let whom = Whom::Certificate { role: Role::Shop, name: "web".parse().unwrap(), certificate: [8; 8] };
        let bytes = Entry { whom: Some(whom), ..sample(1) }.to_bytes();
        let plain = sample(1).to_bytes();
        assert_eq!((bytes[0], &bytes[1..plain.len()]), (0x11, &plain[1..]));
        assert_eq!(hex::encode(&bytes[plain.len()..]), "0100000003776562000000080808080808080808");
    }

    #[test]
    fn how_many_an_entry_stands_for_is_told_last() {
        let bytes = Entry { count: Some(70_000), ..sample(1) }.to_bytes();
        let plain = sample(1).to_bytes();
        assert_eq!((bytes[0], &bytes[1..plain.len()]), (0x21, &plain[1..]));
        assert_eq!(hex::encode(&bytes[plain.len()..]), "00011170");
    }

    #[test]
    fn truncated_and_prolonged_bytes_are_refused() {
        let bytes = sample(1).to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(Entry::from_bytes(&bytes[..end]), None, "{end}");
        }
        assert_eq!(Entry::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }
}
