//! An entry read where it lies, for those who look through millions. INVARIANT: a glance tells of an entry exactly what
//! `Entry::from_bytes` tells of it, and copies nothing; bytes that are no entry may pass here as far as nobody looks at them.

use super::{Action, COUNT, Entry, FORMAT, Reader, RefusalCode, RequestId, SubjectTag, Verdict};
use crate::domain::caller::Role;
use crate::domain::id::{CallerName, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::{Field, Outcome};

/// The high half of a format says what stands behind the parts that every entry has.
const FORMATS: u8 = 0x0f;

/// The parts of an entry that questions go by.
#[derive(Clone, Copy, Debug)]
pub struct Glance<'a> {
    bytes: &'a [u8],
    tenant: &'a [u8],
    actor: Option<Seen<'a>>,
    outcomes: &'a [u8],
    is_counted: bool,
    pub at: Timestamp,
    pub request: RequestId,
    pub action: Action,
    pub verdict: Verdict,
    pub subject: Option<SubjectTag>,
}

#[derive(Clone, Copy, Debug)]
struct Seen<'a> {
    role: Role,
    name: &'a [u8],
    certificate: [u8; 8],
}

impl<'a> Glance<'a> {
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let format = reader.byte()?;
        if format & FORMATS != FORMAT {
            return None;
        }
        let (at, request, tenant) =
            (Timestamp(i64::from_be_bytes(reader.array()?)), RequestId(reader.array()?), reader.bytes()?);
        let actor = match reader.code(Role::from_code)? {
            None => None,
            Some(role) => Some(Seen { role, name: reader.bytes()?, certificate: reader.array()? }),
        };
        let action = Action::from_code(reader.byte()?)?;
        let [_class, _purpose] = reader.array()?;
        let verdict = reader.code(RefusalCode::from_code)?.map_or(Verdict::Done, Verdict::Refused);
        let outcomes = reader.bytes()?;
        let subject = match reader.byte()? {
            0 => None,
            1 => Some(SubjectTag(reader.array()?)),
            _ => return None,
        };
        let is_counted = format & COUNT != 0;
        Some(Self { bytes, tenant, actor, outcomes, is_counted, at, request, action, verdict, subject })
    }

    /// When an entry happened, of bytes that may be none.
    pub fn at(bytes: &[u8]) -> Option<Timestamp> {
        let mut reader = Reader(bytes);
        reader.byte()?;
        Some(Timestamp(i64::from_be_bytes(reader.array()?)))
    }

    pub fn is_of(&self, tenant: &TenantId) -> bool {
        self.tenant == tenant.as_str().as_bytes()
    }

    /// Whether this caller acted; with any certificate, or with the one whose hash begins so.
    pub fn is_by(&self, role: Role, name: &CallerName, certificate: Option<[u8; 8]>) -> bool {
        self.actor.is_some_and(|actor| {
            actor.role == role
                && actor.name == name.as_str().as_bytes()
                && certificate.is_none_or(|certificate| certificate == actor.certificate)
        })
    }

    /// What became of every field that was asked for.
    pub fn outcomes(&self) -> impl Iterator<Item = (Field, Outcome)> + 'a {
        let pairs = self.outcomes.as_chunks::<2>().0.iter();
        pairs.filter_map(|[field, outcome]| Some((Field::from_code(*field)?, Outcome::from_code(*outcome)?)))
    }

    /// Whether the outcomes tell what the caller was shown. Those of storing and correcting tell what was stored; an action that
    /// is new counts as one that shows, for it is better to warn of too much than of too little.
    pub fn is_a_reading(&self) -> bool {
        self.verdict == Verdict::Done && !matches!(self.action, Action::Tokenize | Action::Correct)
    }

    /// Whether a value was shown, or a part of one.
    pub fn shows_a_value(&self) -> bool {
        let is_shown = |(_, outcome)| matches!(outcome, Outcome::Granted | Outcome::Masked);
        self.is_a_reading() && self.outcomes().any(is_shown)
    }

    /// How many requests the entry stands for: one, but where refusals are counted instead of listed.
    pub fn times(&self) -> u64 {
        let count = self.is_counted.then(|| self.entry().and_then(|entry| entry.count)).flatten();
        count.map_or(1, u64::from)
    }

    /// All of it.
    pub fn entry(&self) -> Option<Entry> {
        Entry::from_bytes(self.bytes)
    }
}

/// The entries of packed bytes, each in its own; an entry that is cut off is `None`, and the last.
pub fn each(packed: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut reader = Reader(packed);
    std::iter::from_fn(move || {
        if reader.0.is_empty() {
            return None;
        }
        let bytes = reader.bytes();
        if bytes.is_none() {
            reader.0 = &[];
        }
        Some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Actor;
    use super::super::tests::{any_entry, sample};
    use super::*;
    use crate::audit::verify::pack;
    use proptest::prelude::*;

    /// All that a glance tells, beside all that the entry tells.
    fn agree(glance: &Glance<'_>, entry: &Entry) {
        assert_eq!(glance.entry().as_ref(), Some(entry));
        assert_eq!((glance.at, glance.request, glance.action), (entry.at, entry.request, entry.action));
        assert_eq!((glance.verdict, glance.subject), (entry.verdict, entry.subject));
        assert_eq!(glance.outcomes().collect::<Vec<_>>(), entry.outcomes);
        assert_eq!(glance.times(), entry.count.map_or(1, u64::from));
        assert!(glance.is_of(&entry.tenant) && !glance.is_of(&"another-tenant".parse().unwrap()));
        let by = |role, name: &CallerName, certificate| glance.is_by(role, name, certificate);
        match &entry.actor {
            Actor::Vault => assert!(!by(Role::Shop, &"backend".parse().unwrap(), None)),
            Actor::Caller { role, name, certificate } => {
                assert!(by(*role, name, None) && by(*role, name, Some(*certificate)));
                let [first, ..] = *certificate;
                let mut other = *certificate;
                other[0] = first ^ 1;
                assert!(!by(*role, name, Some(other)));
                assert!(!by(*role, &"another-caller".parse().unwrap(), None));
                let other = Role::ALL.into_iter().find(|other| other != role).unwrap();
                assert!(!by(other, name, None));
            }
        }
    }

    proptest! {
        #[test]
        fn a_glance_tells_what_the_entry_tells(entry in any_entry()) {
            let bytes = entry.to_bytes();
            agree(&Glance::of(&bytes).unwrap(), &entry);
            prop_assert_eq!(Glance::at(&bytes), Some(entry.at));
        }

        #[test]
        fn whatever_is_an_entry_can_be_glanced_at(entry in any_entry(), at: proptest::sample::Index, flip in 1..=255u8) {
            let mut bytes = entry.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let glance = Glance::of(&bytes);
            if let Some(other) = Entry::from_bytes(&bytes) {
                agree(&glance.unwrap(), &other);
            } else if let Some(glance) = glance {
                prop_assert_eq!(glance.entry(), None);
            }
        }

        #[test]
        fn packed_entries_come_apart_again(entries in proptest::collection::vec(any_entry(), 0..6), cut in 1..20_usize) {
            let packed = pack(&entries);
            let apart: Option<Vec<Entry>> = each(&packed).map(|bytes| Entry::from_bytes(bytes?)).collect();
            prop_assert_eq!(apart, Some(entries.clone()));
            if !entries.is_empty() {
                let mut cut_off = each(&packed[..packed.len() - cut]);
                prop_assert_eq!(cut_off.by_ref().take(entries.len()).last(), Some(None));
                prop_assert_eq!(cut_off.next(), None);
            }
        }
    }

    #[test]
    fn truncated_bytes_are_no_entry_to_a_glance() {
        let bytes = sample(1).to_bytes();
        for end in 0..bytes.len() {
            assert!(Glance::of(&bytes[..end]).is_none(), "{end}");
        }
    }
}
