//! Who saw a data subject. INVARIANT: the subject is found by a token of the tenant's own, and its entries by tags that only its
//! own key can make; nothing of the subject itself is opened.

use super::reading::{Reading, corrupt};
use super::{Answer, Period};
use crate::audit::entry::{Action, Entry, RefusalCode, SubjectTag};
use crate::domain::token::Token;
use crate::store::StoreError;
use crate::vault::call::{Call, Draft};
use crate::vault::loaded::Found;
use crate::vault::tokenize::about;
use crate::vault::{Error, Vault};

pub struct WhoSaw {
    /// Of any record of the subject.
    pub token: Token,
    pub period: Period,
    /// All that was done or tried about the subject, not only what showed a value.
    pub everything: bool,
}

impl Vault {
    /// The entries of all who saw the subject, in the log's order.
    pub async fn who_saw(&self, call: &Call, ask: &WhoSaw) -> Result<Answer<Entry>, Error> {
        let draft = Draft::of(call, Action::WhoSaw, self.now());
        let answer = self.try_who_saw(call, ask, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_who_saw(&self, call: &Call, ask: &WhoSaw, draft: &Draft) -> Result<Answer<Entry>, Error> {
        let tenant = &call.caller.tenant;
        let (digest, now) = (ask.token.digest(tenant), self.now());
        let found = self.store().read(|view| {
            Ok(match self.find(view, &digest, now)? {
                Found::Unknown => Err((RefusalCode::Unknown, Error::NotFound)),
                Found::Erased(_) => Err((RefusalCode::Erased, Error::Erased)),
                Found::Live(loaded) => {
                    let subject = view.subject(loaded.row.subject)?.ok_or(StoreError::Tampered { table: "subject" })?;
                    Ok((loaded, self.subject_key(view, &subject)?.audit_tags()))
                }
            })
        })?;
        let (loaded, tag_of) = match found {
            Ok(found) => found,
            Err((code, told)) => return self.refuse(draft.clone(), code, told).await,
        };
        let (period, everything) = (ask.period, ask.everything);
        let mut days = Tags { tag_of, known: None };
        self.ask(tenant, about(draft, &loaded), move |question| {
            let (mut reading, mut rows) = (Reading::new(question, period), Vec::new());
            while reading.turn()? {
                for glance in reading.entries() {
                    let glance = glance?;
                    let Some(tag) = glance.subject else { continue };
                    let is_asked_for = everything || glance.shows_a_value();
                    if is_asked_for && days.is_the_subjects(tag, glance.at.utc_day()) {
                        rows.push(glance.entry().ok_or_else(corrupt)?);
                    }
                }
                question.reply.full_parts(&mut rows)?;
            }
            question.reply.all(rows)
        })
        .await
    }
}

/// The subject's tags, of the day asked for last.
struct Tags<F> {
    tag_of: F,
    known: Option<(i64, [SubjectTag; 2])>,
}

impl<F: Fn(i64) -> [u8; 16]> Tags<F> {
    /// Whether a tag in an entry of this day is the subject's. A request that was received before midnight may have found its
    /// subject after it.
    fn is_the_subjects(&mut self, tag: SubjectTag, day: i64) -> bool {
        let tags = match self.known {
            Some((known, tags)) if known == day => tags,
            _ => [SubjectTag((self.tag_of)(day)), SubjectTag((self.tag_of)(day.saturating_add(1)))],
        };
        self.known = Some((day, tags));
        tags.contains(&tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_subjects_on_its_day_and_on_the_eve_of_it_and_on_no_other() {
        let mut tags = Tags { tag_of: |day: i64| [day as u8; 16], known: None };
        let mut is_mine = |tag: u8, day| tags.is_the_subjects(SubjectTag([tag; 16]), day);
        // The request of day 6 had come on day 5.
        assert!(is_mine(5, 5) && is_mine(6, 5) && is_mine(6, 6));
        assert!(!is_mine(4, 5) && !is_mine(7, 5) && !is_mine(5, 6));
        assert!(is_mine(5, 5), "days may come in any order");
    }
}
