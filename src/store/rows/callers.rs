//! The rows about callers: who is enrolled, and what waits for a second person. INVARIANT: as for every row, `canonical` names
//! every column.

use super::Row;
use crate::crypto::slot::Canonical;
use crate::domain::time::Timestamp;
use crate::policy::approval::{Approval, Spoken, State};
use crate::policy::enrolment::Enrolment;

impl Row for Enrolment {
    const TABLE: &'static str = "caller";
    fn canonical(&self) -> Canonical {
        let enrolled_by = self.enrolled_by.as_ref().map(ToString::to_string).unwrap_or_default();
        Canonical::new("strongroom/row/caller")
            .bytes(self.id.to_string().as_bytes())
            .bytes(&self.issuer.0)
            .u8(self.standing as u8)
            .bytes(&hashes(self.pins.keys().iter().map(|key| key.0)))
            .bytes(&hashes(self.suspended.iter().map(|certificate| certificate.0)))
            .bytes(enrolled_by.as_bytes())
            .bytes(self.line.to_string().as_bytes())
            .i64(self.since.0)
            .u64(self.version)
    }
}

/// Hashes one after the other, as their column holds them.
pub(crate) fn hashes(hashes: impl Iterator<Item = [u8; 32]>) -> Vec<u8> {
    hashes.flatten().collect()
}

impl Row for Approval {
    const TABLE: &'static str = "approval";
    fn canonical(&self) -> Canonical {
        let state = StateColumns::of(&self.state);
        let canonical = Canonical::new("strongroom/row/approval")
            .bytes(self.tenant.as_str().as_bytes())
            .bytes(&self.id.0)
            .u8(self.verb as u8)
            .bytes(&self.digest.0)
            .bytes(self.about.as_bytes());
        let canonical = spoken(canonical, &self.asked).i64(self.expires_at.0).u8(state.code);
        let canonical = match state.said {
            None => canonical.u8(0),
            Some(said) => spoken(canonical.u8(1), said),
        };
        canonical.u8(u8::from(state.used_at.is_some())).i64(state.used_at.map_or(0, |at| at.0))
    }
}

fn spoken(canonical: Canonical, said: &Spoken) -> Canonical {
    canonical.bytes(said.by.to_string().as_bytes()).bytes(&said.key.0).i64(said.at.0)
}

/// An approval's state as its columns hold it.
pub(crate) struct StateColumns<'a> {
    pub code: u8,
    pub said: Option<&'a Spoken>,
    pub used_at: Option<Timestamp>,
}

impl<'a> StateColumns<'a> {
    pub(crate) fn of(state: &'a State) -> Self {
        match state {
            State::Open => Self { code: 1, said: None, used_at: None },
            State::Approved(said) => Self { code: 2, said: Some(said), used_at: None },
            State::Rejected(said) => Self { code: 3, said: Some(said), used_at: None },
            State::Used(said, at) => Self { code: 4, said: Some(said), used_at: Some(*at) },
        }
    }

    /// `None`: no state has such columns.
    pub(crate) fn state(code: u8, said: Option<Spoken>, used_at: Option<Timestamp>) -> Option<State> {
        Some(match (code, said, used_at) {
            (1, None, None) => State::Open,
            (2, Some(said), None) => State::Approved(said),
            (3, Some(said), None) => State::Rejected(said),
            (4, Some(said), Some(at)) => State::Used(said, at),
            _ => return None,
        })
    }
}
