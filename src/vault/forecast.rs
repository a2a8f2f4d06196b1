//! What disappears in the days to come, and why. INVARIANT: nothing is forecast but what its own facts, authenticated and
//! recomputed, make due, by the very functions that the sweeper judges by; the `due` column only says where to look, and in which
//! order. A page is in the log before it leaves, speaks of the asking tenant alone, and opens nothing but tokens.
//!
//! A forecast is of the moment: an event, a hold, an erasure changes it. Its end stays that of the first page, so that it is reached;
//! a record that went on without a piece while the pages were read comes again with what is left of it.
//!
//! The sweeper's brake (`policy::forecast`) goes by the same index and nothing more: it must be cheap, and need not be exact.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::call::{Call, Draft};
use super::destroy::in_force;
use super::explain::{WhyDue, why_due};
use super::loaded::{Held, Loaded};
use super::stage::STAGED;
use super::{ATTEMPTS, Error, Vault};
use crate::audit::entry::Action;
use crate::crypto::page::{open_place, seal_place};
use crate::crypto::slot::{Canonical, Part};
use crate::domain::caller::Role;
use crate::domain::fault::{Fault, planted};
use crate::domain::field::FieldReason;
use crate::domain::id::{RecordId, TenantId};
use crate::domain::time::{DAY, Timestamp};
use crate::domain::token::{Token, TokenDigest};
use crate::domain::vocabulary::{Class, EraseReason, HoldKind};
use crate::policy::hold::stands_against;
use crate::policy::retention::{Piece, Policy};
use crate::store::{StoreError, View};

/// Records looked at for one page, whoever they belong to: some milliseconds' worth.
const PAGE: usize = 256;

pub struct Forecast {
    /// 1 or more.
    pub days: u16,
    /// 1 or more.
    pub page_size: usize,
    /// Where the last page ended, as it said; empty for the first.
    pub page_token: Vec<u8>,
}

pub struct ForecastPage {
    pub tenant: TenantId,
    /// When the first page was asked for, and until when things are forecast.
    pub asked_at: Timestamp,
    pub until: Timestamp,
    /// The shop's zone, which the days of `groups` are of.
    pub zone: String,
    /// In the order in which something of them goes first; none where sums alone were asked for.
    pub records: Vec<RecordGoes>,
    /// The same records, summed up.
    pub groups: BTreeMap<Group, u64>,
    /// Records, of whichever tenant, that fail their authentication: what they say is not believed.
    pub altered: u64,
    /// All that is due before then is told.
    pub reached: Timestamp,
    /// Empty: there are no more.
    pub page_token: Vec<u8>,
}

/// A record of which something goes.
pub struct RecordGoes {
    pub digest: TokenDigest,
    /// Only for who may have it, and while the record can be read.
    pub token: Option<Token>,
    pub class: Class,
    pub goes: Vec<Goes>,
}

/// What goes, when and why.
pub struct Goes {
    /// `None`: the whole record.
    pub piece: Option<Piece>,
    pub ending: Ending,
    pub why: WhyDue,
    /// A hold keeps it beyond its time, unreadable, until that is lifted.
    pub held_by: Option<HoldKind>,
}

/// How something ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ending {
    Purged = 1,
    /// Destroyed, and counted without identity.
    Desensitized = 2,
    /// Its subject's erasure was asked for.
    Erased = 3,
    /// A piece of a record, which goes on without it.
    Shredded = 4,
}

/// What is counted together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Group {
    /// In the shop's zone. What is overdue counts on the day of the asking.
    pub day: Date,
    pub class: Class,
    pub piece: Option<Piece>,
    pub ending: Ending,
    pub due_by: String,
    /// As the policy's file has it, with its section; empty where no rule of the policy's is behind it.
    pub rule: String,
    pub source: String,
    pub held_by: Option<HoldKind>,
}

/// What a record goes by in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Naming {
    /// By its token: whoever acts for the data subjects must be able to place a hold before it is too late.
    Token,
    /// By its token's digest. SECURITY: the shop knows its tokens by it; who stole its certificate learns none.
    Digest,
    /// Not at all.
    Sums,
}

fn naming(action: Action, role: Role) -> Naming {
    match (action, role) {
        (Action::RetentionForecast, Role::PrivacyOfficer) => Naming::Token,
        (Action::RetentionForecast, Role::Shop) => Naming::Digest,
        _ => Naming::Sums,
    }
}

/// A place in the listing, and what the listing is of.
#[derive(Clone, Copy)]
struct Place {
    asked_at: Timestamp,
    until: Timestamp,
    due: Timestamp,
    id: RecordId,
}

impl Place {
    fn first(now: Timestamp, days: u16) -> Self {
        let until = now.plus(i64::from(days) * DAY);
        Self { asked_at: now, until, due: Timestamp(i64::MIN), id: RecordId(i64::MIN) }
    }

    fn numbers(self) -> [i64; 4] {
        [self.asked_at.0, self.until.0, self.due.0, self.id.0]
    }

    fn of([asked_at, until, due, id]: [i64; 4]) -> Self {
        Self { asked_at: Timestamp(asked_at), until: Timestamp(until), due: Timestamp(due), id: RecordId(id) }
    }
}

/// A page before it is logged.
struct Judged {
    records: Vec<RecordGoes>,
    /// Those whose tokens were opened.
    opened: Vec<RecordId>,
    altered: u64,
    reached: Place,
    is_last: bool,
}

impl Vault {
    /// What of the tenant's disappears within so many days, a page of it.
    pub async fn forecast(&self, call: &Call, ask: &Forecast) -> Result<ForecastPage, Error> {
        self.foretell(call, ask, Action::RetentionForecast).await
    }

    /// The same in sums alone.
    pub async fn outlook(&self, call: &Call, ask: &Forecast) -> Result<ForecastPage, Error> {
        self.foretell(call, ask, Action::RetentionOutlook).await
    }

    async fn foretell(&self, call: &Call, ask: &Forecast, action: Action) -> Result<ForecastPage, Error> {
        let (draft, naming) = (Draft::of(call, action, self.now()), naming(action, call.caller.role));
        let answer = self.try_foretell(call, ask, naming, &draft).await;
        self.watch(&draft, answer).await
    }

    async fn try_foretell(
        &self,
        call: &Call,
        ask: &Forecast,
        naming: Naming,
        draft: &Draft,
    ) -> Result<ForecastPage, Error> {
        let tenant = &call.caller.tenant;
        let policy = self.inner.parts.policies.get(tenant).ok_or(Error::NotFound)?;
        let listing = if naming == Naming::Sums { "outlook" } else { "forecast" };
        let context = Canonical::new(listing).bytes(call.caller.path().as_bytes()).u64(ask.days.into());
        let place = match ask.page_token.as_slice() {
            [] => Place::first(self.now(), ask.days),
            token => {
                let place = open_place(&self.keyring(), &context, token);
                Place::of(place.map_err(|_| Error::invalid("page_token", FieldReason::Unknown))?)
            }
        };
        let size = ask.page_size.min(PAGE);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let (vault, of) = (self.clone(), tenant.clone());
            let judging = tokio::task::spawn_blocking(move || {
                vault.store().read(|view| vault.page_of_forecast(view, &of, naming, place, size, now))
            });
            let judged = judging.await.unwrap_or(Err(StoreError::Closed))?;
            let Judged { records, opened, altered, reached, is_last } = judged;
            if altered > 0 {
                self.tell_once("record").await?;
            }
            let entry = draft.clone().at(now).done();
            let receipt = self.log_read("forecast", move |tx| {
                for record in &opened {
                    if tx.record_version(*record)?.is_none() {
                        return Ok(false);
                    }
                }
                tx.log(entry.clone());
                Ok(true)
            });
            let Some(receipt) = receipt.await? else { continue };
            let page_token = match is_last {
                true => Vec::new(),
                false => seal_place(&self.keyring(), &context, reached.numbers(), self.entropy())
                    .map_err(|_| StoreError::Closed)?,
            };
            let records = Held::new(records).release(&receipt);
            let groups = summed(&records, |at| policy.day(at.max(place.asked_at)));
            return Ok(ForecastPage {
                tenant: tenant.clone(),
                asked_at: place.asked_at,
                until: place.until,
                zone: policy.zone().to_owned(),
                records: if naming == Naming::Sums { Vec::new() } else { records },
                groups,
                altered,
                // SECURITY: the place is whoever's record's, so its day is told and no more.
                reached: if is_last { place.until } else { Timestamp(reached.due.utc_day().saturating_mul(DAY)) },
                page_token,
            });
        }
        Err(Error::Unavailable(StoreError::Raced))
    }

    fn page_of_forecast(
        &self,
        view: &View<'_>,
        tenant: &TenantId,
        naming: Naming,
        place: Place,
        size: usize,
        now: Timestamp,
    ) -> Result<Judged, StoreError> {
        let candidates = view.records_due_after((place.due, place.id), place.until, PAGE)?;
        let seen_all = candidates.len() < PAGE;
        let (mut records, mut opened, mut altered, mut reached) = (Vec::new(), Vec::new(), 0, place);
        for (due, id) in candidates {
            if records.len() == size {
                return Ok(Judged { records, opened, altered, reached, is_last: false });
            }
            reached = Place { due, id, ..place };
            match self.record_goes(view, tenant, id, naming, place.until, now) {
                Ok(Some(going)) => {
                    opened.extend(going.token.is_some().then_some(id));
                    records.push(going);
                }
                Ok(None) => {}
                Err(StoreError::Tampered { table } | StoreError::Corrupt { table, .. }) => {
                    tracing::error!(table, record = id.0, "a record fails its authentication and is not forecast");
                    altered += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Judged { records, opened, altered, reached, is_last: seen_all })
    }

    /// What of one record goes by `until`; `None`: nothing, or it is another tenant's.
    fn record_goes(
        &self,
        view: &View<'_>,
        tenant: &TenantId,
        id: RecordId,
        naming: Naming,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<RecordGoes>, StoreError> {
        let is_ours = |of: &TenantId| of == tenant || planted(Fault::ForecastForeign);
        let Some(row) = view.record(id)?.filter(|row| is_ours(&row.tenant)) else { return Ok(None) };
        let loaded = self.loaded(view, row, now)?;
        let holds: Vec<HoldKind> = in_force(view, &loaded.row)?.iter().map(|hold| hold.kind).collect();
        let held_by = |reason: EraseReason| stands_against(reason, holds.iter().copied());
        let policy = self.policy_of(&loaded.row)?;
        let mut goes: Vec<Goes> = pieces(&loaded, policy, until)
            .map(|(piece, why)| Goes { piece: Some(piece), ending: Ending::Shredded, why, held_by: held_by(STAGED) })
            .collect();
        if loaded.due.at <= until {
            let reason = self.reason_for(&loaded)?;
            let why = why_due(&loaded.due, loaded.row.class, None, policy);
            goes.push(Goes { piece: None, ending: ending(reason), why, held_by: held_by(reason) });
        }
        if goes.is_empty() {
            return Ok(None);
        }
        goes.sort_by_key(|going| going.why.due);
        let token = match naming {
            Naming::Token if !loaded.is_due(now) => {
                let token = loaded.open_part(view, &loaded.key(view)?, Part::Token)?;
                let bytes = token.expose().try_into().map_err(|_| StoreError::Tampered { table: "sealed" })?;
                Some(Token::from_bytes(bytes))
            }
            _ => None,
        };
        Ok(Some(RecordGoes { digest: loaded.row.digest, token, class: loaded.row.class, goes }))
    }
}

/// The pieces that go by `until` and before their record.
fn pieces<'a>(loaded: &'a Loaded, policy: &'a Policy, until: Timestamp) -> impl Iterator<Item = (Piece, WhyDue)> + 'a {
    let (row, class) = (&loaded.row, loaded.row.class);
    let goes = move |piece: Piece| {
        if row.fields.is_over(piece) {
            // Over before something was heard that would have held it up: no rule speaks of it any more.
            let why = WhyDue { due: row.due, due_by: "over".to_owned(), cited: None, waiting_for: Vec::new() };
            return Some((piece, why));
        }
        let due = loaded.stages.iter().find(|(stage, _)| *stage == piece).map(|(_, due)| due)?;
        let is_first = due.at <= until && due.at < loaded.due.at;
        is_first.then(|| (piece, why_due(due, class, Some(piece), policy)))
    };
    let held = Piece::all().filter(|piece| row.fields.holds_piece(*piece));
    held.filter(|_| !planted(Fault::ForecastBlind)).filter_map(goes)
}

fn ending(reason: EraseReason) -> Ending {
    match reason {
        EraseReason::Purged => Ending::Purged,
        EraseReason::Desensitized => Ending::Desensitized,
        _ => Ending::Erased,
    }
}

fn summed(records: &[RecordGoes], day: impl Fn(Timestamp) -> Date) -> BTreeMap<Group, u64> {
    let mut groups = BTreeMap::new();
    for (class, going) in records.iter().flat_map(|record| record.goes.iter().map(|going| (record.class, going))) {
        let cited = going.why.cited.as_ref();
        let group = Group {
            day: day(going.why.due),
            class,
            piece: going.piece,
            ending: going.ending,
            due_by: going.why.due_by.clone(),
            rule: cited.map(|cited| cited.rule.clone()).unwrap_or_default(),
            source: cited.map(|cited| cited.source.clone()).unwrap_or_default(),
            held_by: going.held_by,
        };
        *groups.entry(group).or_default() += 1;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_for_the_privacy_officer_digests_for_the_shop_and_sums_for_all_others() {
        for role in Role::ALL {
            let expected = match role.as_str() {
                "privacy-officer" => Naming::Token,
                "shop" => Naming::Digest,
                _ => Naming::Sums,
            };
            assert_eq!(naming(Action::RetentionForecast, role), expected, "{}", role.as_str());
            assert_eq!(naming(Action::RetentionOutlook, role), Naming::Sums, "{}", role.as_str());
        }
    }

    #[test]
    fn what_is_overdue_counts_on_the_day_of_the_asking_and_what_is_held_apart() {
        let policy = Policy::parse(Policy::KITCHENWARE).unwrap();
        let asked_at = Timestamp(20_000 * DAY);
        let going = |day: i64, held_by| Goes {
            piece: None,
            ending: Ending::Desensitized,
            why: WhyDue {
                due: asked_at.plus(day * DAY),
                due_by: "cap".to_owned(),
                cited: None,
                waiting_for: Vec::new(),
            },
            held_by,
        };
        let record =
            |going| RecordGoes { digest: TokenDigest([0; 16]), token: None, class: Class::Order, goes: vec![going] };
        let records: Vec<_> = [going(-9, None), going(0, None), going(0, Some(HoldKind::Court)), going(1, None)]
            .into_iter()
            .map(record)
            .collect();
        let groups = summed(&records, |at| policy.day(at.max(asked_at)));
        let counted: Vec<_> = groups.iter().map(|(group, count)| (group.day, group.held_by, *count)).collect();
        let (today, tomorrow) = (policy.day(asked_at), policy.day(asked_at.plus(DAY)));
        assert_eq!(counted, [(today, None, 2), (today, Some(HoldKind::Court), 1), (tomorrow, None, 1)]);
    }
}
