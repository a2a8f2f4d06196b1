//! What one caller was shown, by living subject and by field: whom to notify when a certificate was abused. INVARIANT: a token
//! leaves only after an entry of its own page's release, and only while its record is there and its retention not over; a
//! subject that is gone is counted and never named.

use std::collections::BTreeMap;

use super::exposure::{Exposure, FieldShown, Shown};
use super::reading::{REST, Reading};
use super::{Answer, Period, Question};
use crate::audit::entry::{Action, SubjectTag, Whom};
use crate::crypto::envelope::Dek;
use crate::crypto::slot::Part;
use crate::domain::caller::CertificateHash;
use crate::domain::id::{RecordId, SubjectId};
use crate::domain::time::Timestamp;
use crate::domain::token::Token;
use crate::store::{StoreError, View};
use crate::vault::call::{Call, Draft};
use crate::vault::enrol::{Named, whom};
use crate::vault::loaded::Held;
use crate::vault::{ATTEMPTS, Error, Vault};

pub struct SeenBy {
    /// Of the asking tenant.
    pub caller: Named,
    /// One of its certificates; `None`: all of them.
    pub certificate: Option<CertificateHash>,
    pub period: Period,
}

/// One row of the answer.
pub enum Seen {
    Subject(SubjectSeen),
    /// Comes last.
    Summary(Summary),
}

/// A living subject that the caller was shown something of.
pub struct SubjectSeen {
    /// Of its newest records, at most `TOKENS`; one is enough for the shop to know its customer.
    pub tokens: Vec<Token>,
    pub shown: Shown,
}

pub struct Summary {
    /// The caller's requests that were answered, and those of them that showed a value.
    pub answered: u64,
    pub showed: u64,
    pub refused: u64,
    /// Living subjects told of in this answer.
    pub subjects: u64,
    /// Subjects that are still known, but whose records are all over: nobody can be told by them any more.
    pub without_token: u64,
    /// A subject that is gone counts once for every day on which it was seen (rarely twice, in an answer over a million and
    /// more): its days do not lead to each other.
    pub gone_subject_days: u64,
    pub fields: Vec<FieldShown>,
}

const TOKENS: usize = 8;
/// Subjects whose keys are opened in one snapshot.
const SUBJECTS: usize = 500;
/// Subjects whose tokens are released by one entry.
const RELEASED: usize = 64;
/// Records of one subject looked at in one statement.
const RECORDS: usize = 16;

/// Subjects with their keys, and where to go on.
type Keys = (Vec<(SubjectId, Dek)>, Option<SubjectId>);

impl Vault {
    /// Whom a caller saw in a period, oldest subject first, then the sums.
    pub async fn seen_by(&self, call: &Call, ask: &SeenBy) -> Result<Answer<Seen>, Error> {
        let id = ask.caller.of(call);
        let draft = Draft::of(call, Action::SeenBy, self.now()).whom(whom(&id, ask.certificate));
        let certificate = match whom(&id, ask.certificate) {
            Whom::Certificate { certificate, .. } => Some(certificate),
            Whom::Caller { .. } | Whom::Epoch { .. } => None,
        };
        let (period, releasing) = (ask.period, draft.clone());
        self.ask(&call.caller.tenant, draft, move |question| {
            let (mut reading, mut exposure) = (Reading::new(question, period), Exposure::default());
            while reading.turn()? {
                for glance in reading.entries() {
                    let glance = glance?;
                    if glance.is_by(id.role, &id.name, certificate) {
                        exposure.hear(&glance);
                    }
                }
                if exposure.is_full() {
                    question.recognise(&mut exposure)?;
                }
            }
            question.recognise(&mut exposure)?;
            question.tell(exposure, &releasing)
        })
        .await
    }
}

impl Question<Seen> {
    /// Asks every living subject of the tenant which of the tags are its own.
    fn recognise(&self, exposure: &mut Exposure) -> Result<(), Error> {
        let (days, mut after) = (exposure.days(), Some(SubjectId(i64::MIN)));
        while let Some(from) = after.filter(|_| !exposure.knows_all()) {
            self.reply.is_at_work()?;
            std::thread::sleep(REST);
            let (keys, next) = self.vault.store().read(|view| self.keys(view, from))?;
            for (subject, key) in &keys {
                let tag_of = key.audit_tags();
                days.iter().try_for_each(|day| exposure.recognise(*subject, SubjectTag(tag_of(*day))))?;
            }
            after = next;
        }
        exposure.give_up();
        Ok(())
    }

    fn keys(&self, view: &View<'_>, from: SubjectId) -> Result<Keys, StoreError> {
        let (subjects, next) = view.subjects_after(&self.tenant, from, SUBJECTS)?;
        let key = |row: &_| self.vault.subject_key(view, row);
        let keys: Result<_, StoreError> = subjects.iter().map(|row| Ok((row.id, key(row)?))).collect();
        Ok((keys?, next))
    }

    /// Names the subjects by tokens, page by page, then sums up.
    fn tell(&self, exposure: Exposure, releasing: &Draft) -> Result<(), Error> {
        let mut summary = Summary {
            answered: exposure.answered,
            showed: exposure.showed,
            refused: exposure.refused,
            subjects: 0,
            without_token: 0,
            gone_subject_days: exposure.gone,
            fields: Vec::new(),
        };
        let (mut subjects, fields): (BTreeMap<SubjectId, Shown>, _) = exposure.sums();
        summary.fields = fields;
        while !subjects.is_empty() {
            let page: Vec<_> = std::iter::from_fn(|| subjects.pop_first()).take(RELEASED).collect();
            let released = self.release(&page, releasing)?;
            summary.subjects += released.len() as u64;
            summary.without_token += (page.len() - released.len()) as u64;
            self.reply.all(released.into_iter().map(Seen::Subject).collect())?;
        }
        self.reply.rows(vec![Seen::Summary(summary)])
    }

    /// Opens tokens of these subjects and logs that, unless one of the records has gone meanwhile.
    fn release(&self, page: &[(SubjectId, Shown)], releasing: &Draft) -> Result<Vec<SubjectSeen>, Error> {
        for _ in 0..ATTEMPTS {
            let now = self.vault.now();
            let (held, rest_on) = self.vault.store().read(|view| self.open(view, page, now))?;
            if rest_on.is_empty() {
                return Ok(Vec::new());
            }
            let entry = releasing.clone().at(now).done();
            let receipt = self.vault.log_read_blocking("seen_by", move |tx| {
                for record in &rest_on {
                    if tx.record_version(*record)?.is_none() {
                        return Ok(false);
                    }
                }
                tx.log(entry.clone());
                Ok(true)
            });
            if let Some(receipt) = receipt? {
                return Ok(held.release(&receipt));
            }
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    /// The tokens of the subjects that have any, and the records they are of.
    fn open(
        &self,
        view: &View<'_>,
        page: &[(SubjectId, Shown)],
        now: Timestamp,
    ) -> Result<(Held<Vec<SubjectSeen>>, Vec<RecordId>), StoreError> {
        let (mut seen, mut records) = (Vec::new(), Vec::new());
        for (subject, shown) in page {
            let (tokens, of) = self.tokens(view, *subject, now)?;
            if !tokens.is_empty() {
                seen.push(SubjectSeen { tokens, shown: *shown });
                records.extend(of);
            }
        }
        Ok((Held::new(seen), records))
    }

    fn tokens(
        &self,
        view: &View<'_>,
        subject: SubjectId,
        now: Timestamp,
    ) -> Result<(Vec<Token>, Vec<RecordId>), StoreError> {
        let (mut tokens, mut records, mut before) = (Vec::new(), Vec::new(), RecordId(i64::MAX));
        loop {
            let rows = view.records_of(subject, before, RECORDS)?;
            let is_last = rows.len() < RECORDS;
            for row in rows {
                before = row.id;
                let loaded = self.vault.loaded(view, row, now)?;
                if loaded.is_due(now) {
                    continue;
                }
                let token = loaded.open_part(view, &loaded.key(view)?, Part::Token)?;
                let bytes = token.expose().try_into().map_err(|_| StoreError::Tampered { table: "sealed" })?;
                tokens.push(Token::from_bytes(bytes));
                records.push(before);
                if tokens.len() == TOKENS {
                    return Ok((tokens, records));
                }
            }
            if is_last {
                return Ok((tokens, records));
            }
        }
    }
}
