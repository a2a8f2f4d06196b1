//! Two people for what is dangerous. INVARIANT: an approval counts only when it was given for this very request, in time, once,
//! by another person: another identity in force, another key, another line of enrolment, in a role that may decide the verb.

use super::enrolment::{Enrolment, Standing};
use crate::domain::caller::{CallerId, Role, SpkiHash};
use crate::domain::id::{ApprovalId, TenantId};
use crate::domain::time::{DAY, Timestamp};

/// How long a request waits, and an approval that was given stays good; counted from the asking.
pub const LIFETIME: i64 = DAY;

/// What takes two people. Codes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Verb {
    ResumeCaller = 1,
    ReplacePins = 2,
    DestroyEpoch = 3,
    LiftHold = 30,
    PostponeEpoch = 4,
    ExportLog = 10,
    /// A retention policy under which something goes earlier.
    ShortenRetention = 20,
    /// Fields of a record to an authority.
    Disclose = 50,
}

/// Who may decide what.
const DECIDERS: &[(Verb, &[Role])] = &[
    (Verb::ResumeCaller, &[Role::KeyAdmin, Role::Operator]),
    (Verb::ReplacePins, &[Role::KeyAdmin, Role::Operator]),
    (Verb::DestroyEpoch, &[Role::KeyAdmin, Role::Operator, Role::PrivacyOfficer]),
    (Verb::LiftHold, &[Role::PrivacyOfficer, Role::KeyAdmin, Role::Operator]),
    (Verb::PostponeEpoch, &[Role::KeyAdmin, Role::Operator, Role::PrivacyOfficer]),
    (Verb::ExportLog, &[Role::KeyAdmin, Role::Operator, Role::PrivacyOfficer]),
    (Verb::ShortenRetention, &[Role::KeyAdmin, Role::PrivacyOfficer]),
    (Verb::Disclose, &[Role::KeyAdmin, Role::PrivacyOfficer]),
];

impl Verb {
    pub fn from_code(code: u8) -> Option<Self> {
        DECIDERS.iter().map(|(verb, _)| *verb).find(|verb| *verb as u8 == code)
    }

    /// The name in logs and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResumeCaller => "resume_caller",
            Self::ReplacePins => "replace_pins",
            Self::DestroyEpoch => "destroy_epoch",
            Self::LiftHold => "lift_hold",
            Self::PostponeEpoch => "postpone_epoch",
            Self::ExportLog => "export_log",
            Self::ShortenRetention => "shorten_retention",
            Self::Disclose => "disclose",
        }
    }

    pub fn may_be_decided_by(self, role: Role) -> bool {
        DECIDERS.iter().any(|(verb, roles)| *verb == self && roles.contains(&role))
    }
}

/// SHA-256 of a request's canonical bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestDigest(pub [u8; 32]);

/// One request for a second person's word, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approval {
    pub id: ApprovalId,
    pub tenant: TenantId,
    pub verb: Verb,
    pub digest: RequestDigest,
    /// What is asked for, in words that the vault chose.
    pub about: String,
    pub asked: Spoken,
    pub expires_at: Timestamp,
    pub state: State,
}

/// Who said something, with which key, when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spoken {
    pub by: CallerId,
    pub key: SpkiHash,
    pub at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    Open,
    Approved(Spoken),
    Rejected(Spoken),
    /// Approved, and carried out at this instant.
    Used(Spoken, Timestamp),
}

/// The approval's time is over, or its state is another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Over;

impl Approval {
    /// What was asked for while the clock was ahead has no longer time for it.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at || now < self.asked.at.plus(-LIFETIME)
    }

    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == State::Open && !self.has_expired(now)
    }

    pub fn approve(self, said: Spoken) -> Result<Self, Over> {
        if self.is_open(said.at) { Ok(Self { state: State::Approved(said), ..self }) } else { Err(Over) }
    }

    pub fn reject(self, said: Spoken) -> Result<Self, Over> {
        match self.state {
            State::Open | State::Approved(_) if !self.has_expired(said.at) => {
                Ok(Self { state: State::Rejected(said), ..self })
            }
            _ => Err(Over),
        }
    }

    /// Carries it out; an approval serves once.
    pub fn use_up(self, now: Timestamp) -> Result<Self, Over> {
        let has_expired = self.has_expired(now);
        match self.state {
            State::Approved(said) if !has_expired => Ok(Self { state: State::Used(said, now), ..self }),
            _ => Err(Over),
        }
    }
}

/// One who asks or decides: an enrolment and the key in use.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    pub enrolment: &'a Enrolment,
    pub key: SpkiHash,
}

impl Person<'_> {
    /// Every key this person is known to hold.
    fn keys(&self) -> impl Iterator<Item = &SpkiHash> {
        std::iter::once(&self.key).chain(self.enrolment.pins.keys())
    }
}

/// Why somebody is no second person for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSecondPerson {
    /// This role does not decide the verb.
    Role,
    /// Suspended since.
    NotInForce,
    SamePerson,
    /// One holds a key of the other.
    SameKey,
    /// One was enrolled by the other, or both by one.
    SameLine,
}

/// Whether `decides` may approve what `asked` asks for.
pub fn second_person(verb: Verb, asked: Person<'_>, decides: Person<'_>) -> Result<(), NoSecondPerson> {
    if asked.enrolment.id == decides.enrolment.id {
        return Err(NoSecondPerson::SamePerson);
    }
    if asked.enrolment.id.tenant != decides.enrolment.id.tenant || !verb.may_be_decided_by(decides.enrolment.id.role) {
        return Err(NoSecondPerson::Role);
    }
    if [asked, decides].iter().any(|person| person.enrolment.standing != Standing::Active) {
        return Err(NoSecondPerson::NotInForce);
    }
    if asked.keys().any(|key| decides.keys().any(|other| other == key)) {
        return Err(NoSecondPerson::SameKey);
    }
    if asked.enrolment.line == decides.enrolment.line { Err(NoSecondPerson::SameLine) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::enrolment::Pins;
    use super::super::enrolment::tests::enrolment;
    use super::*;

    fn person(enrolment: &Enrolment) -> Person<'_> {
        Person { enrolment, key: enrolment.pins.keys()[0] }
    }

    fn anna() -> Enrolment {
        enrolment("tenant/k/key-admin/anna", 1)
    }

    fn bert() -> Enrolment {
        enrolment("tenant/k/operator/bert", 2)
    }

    fn judged(asked: &Enrolment, decides: &Enrolment) -> Result<(), NoSecondPerson> {
        second_person(Verb::ResumeCaller, person(asked), person(decides))
    }

    #[test]
    fn two_people_of_two_lines_are_two() {
        assert_eq!(judged(&anna(), &bert()), Ok(()));
        assert_eq!(judged(&bert(), &anna()), Ok(()));
    }

    #[test]
    fn every_way_to_be_one_person_is_refused() {
        let by = |enrolment: Enrolment, line: &Enrolment| Enrolment {
            enrolled_by: Some(line.id.clone()),
            line: line.line.clone(),
            ..enrolment
        };
        let (officer, shop) = (enrolment("tenant/k/privacy-officer/otto", 3), enrolment("tenant/k/shop/backend", 4));
        let elsewhere = enrolment("tenant/other/operator/bert", 2);
        let suspended = |enrolment: Enrolment| Enrolment { standing: Standing::Suspended, ..enrolment };
        let shares = Pins::new(Role::Operator, vec![SpkiHash([2; 32]), SpkiHash([1; 32])]).unwrap();
        let carl = enrolment("tenant/k/operator/carl", 5);
        for (asked, decides, why) in [
            (anna(), anna(), NoSecondPerson::SamePerson),
            (anna(), officer, NoSecondPerson::Role),
            (anna(), shop, NoSecondPerson::Role),
            (anna(), elsewhere, NoSecondPerson::Role),
            (anna(), suspended(bert()), NoSecondPerson::NotInForce),
            (suspended(anna()), bert(), NoSecondPerson::NotInForce),
            (anna(), enrolment("tenant/k/operator/bert", 1), NoSecondPerson::SameKey),
            (anna(), Enrolment { pins: shares, ..bert() }, NoSecondPerson::SameKey),
            (anna(), by(bert(), &anna()), NoSecondPerson::SameLine),
            (by(anna(), &bert()), bert(), NoSecondPerson::SameLine),
            (by(bert(), &anna()), by(carl, &anna()), NoSecondPerson::SameLine),
        ] {
            assert_eq!(judged(&asked, &decides), Err(why), "{} / {}", asked.id, decides.id);
        }
    }

    fn said(path: &str, at: i64) -> Spoken {
        Spoken { by: path.parse().unwrap(), key: SpkiHash([0; 32]), at: Timestamp(at) }
    }

    fn asked() -> Approval {
        Approval {
            id: ApprovalId([1; 16]),
            tenant: "k".parse().unwrap(),
            verb: Verb::ResumeCaller,
            digest: RequestDigest([2; 32]),
            about: String::new(),
            asked: said("tenant/k/key-admin/anna", 0),
            expires_at: Timestamp(100),
            state: State::Open,
        }
    }

    /// Asked for a day from now.
    fn approval_of_tomorrow() -> Approval {
        let tomorrow = LIFETIME;
        Approval {
            asked: said("tenant/k/key-admin/anna", tomorrow),
            expires_at: Timestamp(tomorrow + LIFETIME),
            ..asked()
        }
    }

    const BERT: &str = "tenant/k/operator/bert";

    #[test]
    fn an_approval_serves_once() {
        let used = asked().approve(said(BERT, 1)).unwrap().use_up(Timestamp(2)).unwrap();
        assert_eq!(used.clone().use_up(Timestamp(3)), Err(Over));
        assert_eq!(used.clone().reject(said(BERT, 3)), Err(Over));
        assert_eq!(used.approve(said(BERT, 3)), Err(Over));
    }

    #[test]
    fn nothing_moves_once_the_time_is_over() {
        let approved = asked().approve(said(BERT, 99)).unwrap();
        assert!(approved.clone().use_up(Timestamp(99)).is_ok());
        assert_eq!(approved.clone().use_up(Timestamp(100)), Err(Over));
        assert_eq!(approved.reject(said(BERT, 100)), Err(Over));
        assert_eq!(asked().approve(said(BERT, 100)), Err(Over));
        assert!(asked().is_open(Timestamp(99)) && !asked().is_open(Timestamp(100)));
        let while_ahead = approval_of_tomorrow();
        assert!(while_ahead.is_open(Timestamp(0)) && !while_ahead.is_open(Timestamp(-1)));
        let approved = while_ahead.approve(said(BERT, 1)).unwrap();
        assert_eq!(approved.clone().use_up(Timestamp(-1)), Err(Over));
        assert!(approved.use_up(Timestamp(2)).is_ok());
    }

    #[test]
    fn what_was_rejected_or_never_approved_is_not_used() {
        assert_eq!(asked().use_up(Timestamp(1)), Err(Over));
        let rejected = asked().reject(said(BERT, 1)).unwrap();
        assert_eq!(rejected.clone().use_up(Timestamp(2)), Err(Over));
        assert_eq!(rejected.approve(said(BERT, 2)), Err(Over));
        let withdrawn = asked().approve(said(BERT, 1)).unwrap().reject(said(BERT, 2)).unwrap();
        assert_eq!(withdrawn.use_up(Timestamp(3)), Err(Over));
    }

    #[test]
    fn every_verb_has_its_deciders_and_no_caller_with_data_is_one() {
        for (verb, roles) in DECIDERS {
            assert_eq!(Verb::from_code(*verb as u8), Some(*verb));
            assert!(!roles.is_empty() && roles.iter().all(|role| super::super::enrolment::PINNED.contains(role)));
        }
    }
}
