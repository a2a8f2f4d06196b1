//! Why and when a record, and each piece that goes before it, is due. INVARIANT: nothing is opened; what is told comes from the
//! record's own facts and from the very policy it was collected under.

use super::call::{Call, Draft};
use super::describe::{LookedUp, RecordState, due_by};
use super::loaded::Loaded;
use super::{Error, Vault};
use crate::audit::entry::Action;
use crate::domain::id::PolicyVersion;
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::domain::vocabulary::{Class, EraseReason, EventKind};
use crate::policy::retention::{Cited, Due, Piece, Policy};

pub enum Explanation {
    Kept(Box<Explained>),
    Erased(EraseReason),
}

/// A record, as far as retention goes.
pub struct Explained {
    pub state: RecordState,
    pub class: Class,
    pub stored_at: Timestamp,
    pub policy_id: String,
    pub policy_version: PolicyVersion,
    pub record: WhyDue,
    pub pieces: Vec<PieceDue>,
}

/// When something is due, and by which rule.
pub struct WhyDue {
    pub due: Timestamp,
    pub due_by: String,
    pub cited: Option<Cited>,
    pub waiting_for: Vec<EventKind>,
}

/// A piece that goes before its record.
pub struct PieceDue {
    pub piece: Piece,
    pub is_over: bool,
    /// `None`: it is over, and no rule speaks of it any more.
    pub why: Option<WhyDue>,
}

impl Vault {
    pub async fn explain_retention(&self, call: &Call, token: &Token) -> Result<Explanation, Error> {
        let draft = Draft::of(call, Action::ExplainRetention, self.now());
        let answer = self.looked_up(call, token, &draft).await;
        Ok(match self.watch(&draft, answer).await? {
            LookedUp::Erased(reason) => Explanation::Erased(reason),
            LookedUp::Kept(loaded, _, now) => {
                Explanation::Kept(Box::new(explained(&loaded, now, self.policy_of(&loaded.row)?)))
            }
        })
    }
}

fn explained(loaded: &Loaded, now: Timestamp, policy: &Policy) -> Explained {
    let class = loaded.row.class;
    let piece_due = |piece: Piece| {
        let due = loaded.stages.iter().find(|(stage, _)| *stage == piece).map(|(_, due)| due);
        let is_over = loaded.is_over(piece);
        let is_held = loaded.row.fields.holds_piece(piece);
        let why = due.map(|due| why_due(due, class, Some(piece), policy));
        (is_over || is_held && why.is_some()).then_some(PieceDue { piece, is_over, why })
    };
    Explained {
        state: if loaded.is_due(now) { RecordState::Expired } else { RecordState::Live },
        class,
        stored_at: loaded.row.stored_at,
        policy_id: policy.id().to_owned(),
        policy_version: policy.version(),
        record: why_due(&loaded.due, class, None, policy),
        pieces: Piece::all().filter_map(piece_due).collect(),
    }
}

pub(crate) fn why_due(due: &Due, class: Class, piece: Option<Piece>, policy: &Policy) -> WhyDue {
    WhyDue {
        due: due.at,
        due_by: due_by(due),
        cited: policy.cited(class, piece, due.by),
        waiting_for: due.waiting_for.clone(),
    }
}
