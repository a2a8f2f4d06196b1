//! Statistics: what desensitizing leaves of the records, a month at a time. INVARIANT: a month is counted while the mark is in
//! it and published once, when the mark has left it; what is published never changes, and from then on nothing is left that
//! could tell one subject of the month from another.
//!
//! ```text
//! a record is desensitized → (class, country) of its month, and who: HMAC of the customer's reference under the month's
//!                            own key → one more in `tally`, in the destruction's own commit
//! the mark leaves the month → tallies are read → `policy::cube` folds what is small → one commit: the cube is kept, the
//!                            month's key is gone → the tallies, which tell nothing without it, go in chunks
//! ```
//! A record that is desensitized when its month is closed (the mark was saved before a crash) counts in the next.

use super::call::{Call, Draft};
use super::error::unopened;
use super::loaded::{Loaded, Why};
use super::{Error, Vault};
use crate::audit::entry::{Action, RefusalCode};
use crate::crypto::envelope::{Dek, Sealed, WrappedDek, open, unwrap, wrap};
use crate::crypto::keyring::Keyring;
use crate::crypto::slot::{Part, SealSlot};
use crate::domain::field::{FieldReason, FieldValue};
use crate::domain::id::{RecordId, Revision, TenantId};
use crate::domain::time::Timestamp;
use crate::domain::vocabulary::Field;
use crate::policy::cube::{Cell, Cube, Tallies, Who};
use crate::store::rows::erasure::{MonthRow, MonthState, TallyRow};
use crate::store::{StoreError, Tx, View};

/// Rows of a closed month that go in one transaction.
const CHUNK: usize = 200;
/// Months that one question may ask for.
const MOST: i64 = 120;

/// A month that is closed, and what is published of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishedMonth {
    /// Year × 12 + month − 1.
    pub month: i64,
    pub cube: Cube,
}

impl Vault {
    /// The closed months of that range, both ends included.
    pub async fn published(&self, call: &Call, from: i64, until: i64) -> Result<Vec<PublishedMonth>, Error> {
        let draft = Draft::of(call, Action::Published, self.now());
        let read = || {
            if until < from || until.saturating_sub(from) >= MOST {
                return Err(Error::invalid("until", FieldReason::NotAMonth));
            }
            self.closed_months(&call.caller.tenant, from, until)
        };
        let months = self.watch(&draft, read()).await?;
        self.log(draft.done()).await?;
        Ok(months)
    }

    fn closed_months(&self, tenant: &TenantId, from: i64, until: i64) -> Result<Vec<PublishedMonth>, Error> {
        let mut published = Vec::new();
        for row in self.store().read(|view| view.months(tenant, from, until))? {
            if let MonthState::Closed { cube, .. } = row.state {
                let cube = Cube::from_bytes(&cube).ok_or(Error::Tampered { table: "month" })?;
                published.push(PublishedMonth { month: row.month, cube });
            }
        }
        Ok(published)
    }

    /// Where a record that goes at that instant is counted. `None`: what is needed for it fails its authentication, which
    /// must not keep a due record alive.
    pub(crate) fn one_more(&self, view: &View<'_>, loaded: &Loaded, at: Timestamp) -> Option<TallyRow> {
        let counted = || {
            let row = open_month(view, &loaded.row.tenant, at)?;
            let key = month_key(view, &row)?;
            let who = Who(key.month_tag(&self.reference(view, loaded)?));
            let (tenant, class) = (loaded.row.tenant.clone(), loaded.row.class);
            let cell = Cell { class, country: country(view, loaded) };
            Ok::<_, StoreError>(TallyRow { tenant, month: row.month, cell, who, count: 0 })
        };
        let counted = counted();
        if let Err(error) = &counted {
            tracing::error!(%error, "a due record cannot be counted, and goes uncounted");
        }
        counted.ok()
    }

    /// The shop's reference of the subject, opened for the month's key alone.
    fn reference(&self, view: &View<'_>, loaded: &Loaded) -> Result<crate::crypto::envelope::Plaintext, StoreError> {
        let (subject, part) = (&loaded.subject, Part::CustomerReference);
        let (tenant, revision) = (&subject.tenant, Revision(0));
        let slot = SealSlot { tenant, record: RecordId(0), part, revision, dek: subject.dek };
        let sealed = Sealed::from_bytes(subject.reference.clone());
        open(&self.subject_key(view, subject)?, &slot, &sealed).map_err(unopened("subject"))
    }

    /// Makes sure that what goes at that instant can be counted.
    pub(crate) async fn begin_month(&self, tenant: &TenantId, at: Timestamp) -> Result<(), Error> {
        if self.store().read(|view| open_month(view, tenant, at)).is_ok() {
            return Ok(());
        }
        let key = Dek::generate(self.entropy());
        let row = self.store().read(|view| {
            let number = first_not_closed(view, tenant, at)?;
            self.wrapped_month(view.keyring(), tenant, number, &key)
        })?;
        let begin = move |tx: &mut Tx<'_>| match tx.month(&row.tenant, row.month)? {
            Some(_) => Ok(()),
            None => tx.put_month(&row),
        };
        Ok(self.store().run("begin_month", begin).await?)
    }

    fn wrapped_month(
        &self,
        keyring: &Keyring,
        tenant: &TenantId,
        month: i64,
        key: &Dek,
    ) -> Result<MonthRow, StoreError> {
        let epoch = keyring.active();
        let open = |key| MonthState::Open { epoch: epoch.number(), key };
        let row = MonthRow { tenant: tenant.clone(), month, state: open(Vec::new()) };
        let wrapped = wrap(epoch, &row.wrap_slot(epoch.number()), key, self.entropy()).map_err(unopened("month"))?;
        Ok(MonthRow { state: open(wrapped.as_bytes().to_vec()), ..row })
    }

    /// Closes what the mark has left.
    pub(crate) async fn tend_months(&self, tenant: &TenantId, mark: Timestamp) -> Result<(), Error> {
        let current = month_of(mark);
        for row in self.store().read(|view| view.months(tenant, i64::MIN, i64::MAX))? {
            match &row.state {
                MonthState::Open { .. } if row.month < current => self.close(row, mark).await?,
                MonthState::Open { .. } | MonthState::Closed { .. } => {}
            }
        }
        // After a kill, too: what is left of closed months is found by its age.
        while self.store().read(|view| view.has_tallies(tenant, current))? {
            let tenant = tenant.clone();
            let delete = move |tx: &mut Tx<'_>| tx.delete_tallies(&tenant, current, CHUNK).map(drop);
            self.store().run("delete_tallies", delete).await?;
        }
        Ok(())
    }

    async fn close(&self, row: MonthRow, mark: Timestamp) -> Result<(), Error> {
        let draft = Draft::by_vault(&row.tenant, self.new_request(), Action::CloseMonth, mark);
        let tallied = self.store().read(|view| {
            let mut tallies = Tallies::new();
            for row in view.tallies(&row.tenant, row.month)? {
                *tallies.entry(row.cell).or_default().entry(row.who).or_default() += row.count;
            }
            Ok(tallies)
        });
        let (cube, entry) = match tallied {
            Ok(tallies) => (Cube::of(&tallies), draft.done()),
            Err(StoreError::Tampered { table } | StoreError::Corrupt { table, .. }) => {
                tracing::error!(table, "a tally fails its authentication; its month is not published");
                (Cube::default(), draft.action(Action::Tamper).refused(RefusalCode::Tampered))
            }
            Err(error) => return Err(error.into()),
        };
        let closed = MonthRow { state: MonthState::Closed { at: mark, cube: cube.to_bytes() }, ..row };
        let close = move |tx: &mut Tx<'_>| {
            tx.put_month(&closed)?;
            tx.log(entry.clone());
            Ok(())
        };
        self.store().run("close_month", close).await?;
        self.truncate_log().await
    }

    /// An open month with its key under the active epoch.
    pub(super) fn rewrapped_month(&self, view: &View<'_>, row: &MonthRow) -> Result<MonthRow, StoreError> {
        let key = month_key(view, row)?;
        self.wrapped_month(view.keyring(), &row.tenant, row.month, &key)
    }
}

/// The month that takes what is counted at that instant. Errors: `Raced` when it has not begun.
fn open_month(view: &View<'_>, tenant: &TenantId, at: Timestamp) -> Result<MonthRow, StoreError> {
    let number = first_not_closed(view, tenant, at)?;
    view.month(tenant, number)?.ok_or(StoreError::Raced)
}

fn first_not_closed(view: &View<'_>, tenant: &TenantId, at: Timestamp) -> Result<i64, StoreError> {
    let mut number = month_of(at);
    while let Some(MonthRow { state: MonthState::Closed { .. }, .. }) = view.month(tenant, number)? {
        number += 1;
    }
    Ok(number)
}

fn month_key(view: &View<'_>, row: &MonthRow) -> Result<Dek, StoreError> {
    let tampered = StoreError::Tampered { table: "month" };
    let MonthState::Open { epoch, key } = &row.state else { return Err(tampered) };
    let Some(keys) = view.keyring().epoch(*epoch) else { return Err(tampered) };
    unwrap(keys, &row.wrap_slot(*epoch), &WrappedDek::from_bytes(key.clone())).map_err(unopened("month"))
}

/// Opens the address for its country; one that does not open counts under no country.
fn country(view: &View<'_>, loaded: &Loaded) -> String {
    let open = || -> Result<Option<String>, StoreError> {
        if !loaded.row.fields.holds(Field::Address) {
            return Ok(None);
        }
        let key = loaded.key(view)?;
        Ok(match loaded.open_field(view, &key, Field::Address, &Why::Count)? {
            Some(FieldValue::Address(address)) => Some(address.country().to_owned()),
            _ => None,
        })
    };
    let country = open().unwrap_or_else(|error| {
        tracing::error!(%error, "the address of a due record does not open; it is counted without its country");
        None
    });
    country.unwrap_or_default()
}

/// Year × 12 + month − 1, UTC.
fn month_of(at: Timestamp) -> i64 {
    let date = at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}
