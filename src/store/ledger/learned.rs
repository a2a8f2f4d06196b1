//! What a database has learned and a restored one must know again: business events, ended grants, holds, subjects that leave, who
//! may come in. INVARIANT: it names no personal data, and what it says is the whole of the fact, so that telling it twice, or to a
//! database that knows it, changes nothing.

use serde::{Deserialize, Serialize};

use crate::domain::caller::{CallerId, CertificateHash, SpkiHash};
use crate::domain::id::{ErasureId, GrantId, HoldId, RecordId, SubjectId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{EraseReason, EventKind, HoldKind};
use crate::policy::enrolment::{Enrolment, Pins, Standing};
use crate::policy::facts::Event;
use crate::policy::leaving::Leaving;

#[derive(Clone, PartialEq, Debug)]
pub enum Learned {
    /// Something happened to the record.
    Happened(Event),
    /// One of the record's grants was revoked.
    GrantEnded(GrantId),
    HoldPlaced {
        subject: SubjectId,
        /// `None`: every record of the subject.
        record: Option<TokenDigest>,
        id: HoldId,
        kind: HoldKind,
        /// The case's name, sealed under the subject's key.
        reference: Vec<u8>,
        placed_by: CallerId,
        placed_at: Timestamp,
    },
    HoldLifted {
        id: HoldId,
        lifted_at: Timestamp,
    },
    /// The subject's erasure was asked for.
    Leaving(SubjectId, Leaving),
    /// What a caller may do from now on.
    Caller(Box<Enrolment>),
}

/// The same, as it lies in a line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Written {
    Happened {
        kind: u8,
        ordinal: u32,
        occurred: i64,
        recorded: i64,
    },
    GrantEnded {
        grant: i64,
    },
    HoldPlaced {
        subject: i64,
        record: Option<String>,
        hold: i64,
        kind: u8,
        reference: String,
        by: String,
        at: i64,
    },
    HoldLifted {
        hold: i64,
        at: i64,
    },
    Leaving {
        subject: i64,
        at: i64,
        reason: u8,
        story: String,
        last: i64,
    },
    Caller {
        id: String,
        issuer: String,
        standing: u8,
        pins: Vec<String>,
        suspended: Vec<String>,
        enrolled_by: Option<String>,
        line: String,
        since: i64,
        version: u64,
    },
}

impl Learned {
    /// JSON, which never ends in a zero.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&Written::of(self)).unwrap_or_default()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Written>(bytes).ok()?.learned()
    }
}

impl Written {
    fn of(learned: &Learned) -> Self {
        match learned {
            Learned::Happened(event) => Self::Happened {
                kind: event.kind.code(),
                ordinal: event.ordinal,
                occurred: event.occurred_at.0,
                recorded: event.recorded_at.0,
            },
            Learned::GrantEnded(grant) => Self::GrantEnded { grant: grant.0 },
            Learned::HoldPlaced { subject, record, id, kind, reference, placed_by, placed_at } => Self::HoldPlaced {
                subject: subject.0,
                record: record.map(|digest| hex::encode(digest.0)),
                hold: id.0,
                kind: kind.code(),
                reference: hex::encode(reference),
                by: placed_by.to_string(),
                at: placed_at.0,
            },
            Learned::HoldLifted { id, lifted_at } => Self::HoldLifted { hold: id.0, at: lifted_at.0 },
            Learned::Leaving(subject, leaving) => Self::Leaving {
                subject: subject.0,
                at: leaving.at.0,
                reason: leaving.reason.code(),
                story: hex::encode(leaving.story.0),
                last: leaving.last.0,
            },
            Learned::Caller(enrolment) => Self::Caller {
                id: enrolment.id.to_string(),
                issuer: hex::encode(enrolment.issuer.0),
                standing: enrolment.standing as u8,
                pins: enrolment.pins.keys().iter().map(|key| hex::encode(key.0)).collect(),
                suspended: enrolment.suspended.iter().map(|certificate| hex::encode(certificate.0)).collect(),
                enrolled_by: enrolment.enrolled_by.as_ref().map(ToString::to_string),
                line: enrolment.line.to_string(),
                since: enrolment.since.0,
                version: enrolment.version,
            },
        }
    }

    fn learned(self) -> Option<Learned> {
        Some(match self {
            Self::Happened { kind, ordinal, occurred, recorded } => Learned::Happened(Event {
                kind: EventKind::from_code(kind)?,
                ordinal,
                occurred_at: Timestamp(occurred),
                recorded_at: Timestamp(recorded),
            }),
            Self::GrantEnded { grant } => Learned::GrantEnded(GrantId(grant)),
            Self::HoldPlaced { subject, record, hold, kind, reference, by, at } => Learned::HoldPlaced {
                subject: SubjectId(subject),
                record: match record {
                    Some(digest) => Some(TokenDigest(bytes(&digest)?)),
                    None => None,
                },
                id: HoldId(hold),
                kind: HoldKind::from_code(kind)?,
                reference: hex::decode(reference).ok()?,
                placed_by: by.parse().ok()?,
                placed_at: Timestamp(at),
            },
            Self::HoldLifted { hold, at } => Learned::HoldLifted { id: HoldId(hold), lifted_at: Timestamp(at) },
            Self::Leaving { subject, at, reason, story, last } => {
                let (reason, story) = (EraseReason::from_code(reason)?, ErasureId(bytes(&story)?));
                Learned::Leaving(SubjectId(subject), Leaving { at: Timestamp(at), reason, story, last: RecordId(last) })
            }
            Self::Caller { id, issuer, standing, pins, suspended, enrolled_by, line, since, version } => {
                let id: CallerId = id.parse().ok()?;
                let pins = pins.iter().map(|key| Some(SpkiHash(bytes(key)?))).collect::<Option<_>>()?;
                let suspended = suspended.iter().map(|hash| Some(CertificateHash(bytes(hash)?))).collect::<Option<_>>();
                Learned::Caller(Box::new(Enrolment {
                    pins: Pins::new(id.role, pins).ok()?,
                    id,
                    issuer: SpkiHash(bytes(&issuer)?),
                    standing: Standing::from_code(standing)?,
                    suspended: suspended?,
                    enrolled_by: match enrolled_by {
                        Some(by) => Some(by.parse().ok()?),
                        None => None,
                    },
                    line: line.parse().ok()?,
                    since: Timestamp(since),
                    version,
                }))
            }
        })
    }
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::caller::Role;
    use crate::domain::id::CallerName;

    fn caller(role: Role, name: &str) -> CallerId {
        CallerId { tenant: "k".parse().unwrap(), role, name: name.parse::<CallerName>().unwrap() }
    }

    #[test]
    fn every_fact_comes_back_as_it_was() {
        let subject = SubjectId(7);
        let placed = |record| Learned::HoldPlaced {
            subject,
            record,
            id: HoldId(9),
            kind: HoldKind::Court,
            reference: vec![1, 2, 0],
            placed_by: caller(Role::PrivacyOfficer, "olga"),
            placed_at: Timestamp(3),
        };
        let enrolment = |enrolled_by| Enrolment {
            id: caller(Role::KeyAdmin, "anna"),
            issuer: SpkiHash([1; 32]),
            standing: Standing::Suspended,
            pins: Pins::new(Role::KeyAdmin, vec![SpkiHash([2; 32]), SpkiHash([3; 32])]).unwrap(),
            suspended: vec![CertificateHash([4; 32])],
            enrolled_by,
            line: caller(Role::KeyAdmin, "anna"),
            since: Timestamp(5),
            version: 6,
        };
        for learned in [
            Learned::Happened(Event {
                kind: EventKind::Delivered,
                ordinal: 2,
                occurred_at: Timestamp(-1),
                recorded_at: Timestamp(i64::MAX),
            }),
            Learned::GrantEnded(GrantId(8)),
            placed(None),
            placed(Some(TokenDigest([5; 16]))),
            Learned::HoldLifted { id: HoldId(9), lifted_at: Timestamp(4) },
            Learned::Leaving(
                subject,
                Leaving { at: Timestamp(2), reason: EraseReason::Minor, story: ErasureId([6; 16]), last: RecordId(10) },
            ),
            Learned::Caller(Box::new(enrolment(None))),
            Learned::Caller(Box::new(enrolment(Some(caller(Role::KeyAdmin, "bert"))))),
        ] {
            assert_eq!(Learned::from_bytes(&learned.to_bytes()), Some(learned.clone()), "{learned:?}");
        }
        for bad in ["", "{}", "{\"happened\":{}}", "{\"grant_ended\":{\"grant\":1,\"x\":2}}"] {
            assert_eq!(Learned::from_bytes(bad.as_bytes()), None, "{bad}");
        }
    }
}
