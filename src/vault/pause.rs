//! The sweeper's brake: when far more is due than was forecast, destruction waits for a person. INVARIANT: the count of the day
//! lives and dies with the destructions it counts, so that no restart forgets it; only a person takes the brake off, and what
//! waits meanwhile is unreadable all the same.

use super::call::{Call, Draft};
use super::{Error, Vault};
use crate::audit::entry::Action;
use crate::domain::time::{DAY, Timestamp};
use crate::policy::forecast::Window;
use crate::store::{StoreError, Tx, View};

const BEGAN: &str = "sweep_began";
const FORECAST: &str = "sweep_forecast";
const DESTROYED: &str = "sweep_destroyed";
const PAUSED: &str = "sweep_paused";

/// What an operator is told of a sweeper that waits.
pub(crate) const WARNING: &str = "far more records came due than was forecast, and destruction waits: they are unreadable. \
                                  Look at the clock and at the events of late, then: strongroom retention resume";

impl Vault {
    /// The sweeper's day as of the mark; `None`: it waits for a person.
    pub(crate) async fn window(&self, mark: Timestamp) -> Result<Option<Window>, Error> {
        let set_aside = self.aside().len() as u64;
        let read = self.store().read(|view| {
            if view.meta_i64(PAUSED)? == Some(1) {
                return Ok((None, false));
            }
            let known = load(view)?;
            let window = match known {
                None => vouched(view, mark)?,
                Some(window) if window.is_over(mark) => {
                    let coming = view.records_due_between(mark, mark.plus(DAY))?;
                    let due = view.records_due_between(Timestamp(i64::MIN), mark)?;
                    window.next(mark, coming, due.saturating_sub(set_aside))
                }
                Some(window) => window,
            };
            Ok((Some(window), known != Some(window)))
        });
        let (window, fresh) = match read {
            Ok(read) => read,
            // What counts the day was altered: as good as a day that was exceeded.
            Err(StoreError::Tampered { table } | StoreError::Corrupt { table, .. }) => {
                tracing::error!(table, "the sweeper's count fails its authentication, and destruction waits");
                self.tell_once(table).await?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(window) = window.filter(|_| fresh) {
            self.store().run("sweep_window", move |tx| save_window(tx, window)).await?;
        }
        Ok(window)
    }

    pub(crate) async fn pause(&self, window: Window, mark: Timestamp) -> Result<(), Error> {
        tracing::error!(forecast = window.forecast, destroyed = window.destroyed, "{WARNING}");
        let Some(tenant) = self.inner.parts.policies.keys().next().cloned() else { return Ok(()) };
        let entry = Draft::by_vault(&tenant, self.new_request(), Action::PauseSweep, mark).done();
        let pause = move |tx: &mut Tx<'_>| {
            tx.set_meta_i64(PAUSED, 1)?;
            tx.log(entry.clone());
            Ok(())
        };
        Ok(self.store().run("pause_sweep", pause).await?)
    }

    pub(crate) fn is_paused(&self) -> Result<bool, Error> {
        match self.store().read(|view| Ok((view.meta_i64(PAUSED)?, load(view)?))) {
            Ok((paused, _)) => Ok(paused == Some(1)),
            Err(StoreError::Tampered { .. } | StoreError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// An operator has looked, and vouches for all that is due by now; the sweeper goes on. Answers how much that is.
    pub async fn resume_sweep(&self, call: &Call) -> Result<u64, Error> {
        let draft = Draft::of(call, Action::ResumeSweep, self.now());
        let mark = self.inner.mark.at();
        let due = self.store().read(|view| view.records_due_between(Timestamp(i64::MIN), mark)).map_err(Error::from);
        let due = self.watch(&draft, due).await?;
        let entry = draft.done();
        let resume = move |tx: &mut Tx<'_>| {
            tx.set_meta_i64(PAUSED, 0)?;
            save_window(tx, vouched(tx, mark)?)?;
            tx.log(entry.clone());
            Ok(())
        };
        self.store().run("resume_sweep", resume).await?;
        Ok(due)
    }
}

fn vouched(view: &View<'_>, mark: Timestamp) -> Result<Window, StoreError> {
    Ok(Window::vouched(mark, view.records_due_between(Timestamp(i64::MIN), mark.plus(DAY))?))
}

fn load(view: &View<'_>) -> Result<Option<Window>, StoreError> {
    let number = |key| Ok::<_, StoreError>(view.meta_i64(key)?.and_then(|number| u64::try_from(number).ok()));
    let (Some(began), Some(forecast), Some(destroyed)) = (view.meta_i64(BEGAN)?, number(FORECAST)?, number(DESTROYED)?)
    else {
        return Ok(None);
    };
    Ok(Some(Window { began: Timestamp(began), forecast, destroyed }))
}

/// In the transaction of the destructions that it counts.
pub(crate) fn save_window(tx: &Tx<'_>, window: Window) -> Result<(), StoreError> {
    let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
    tx.set_meta_i64(BEGAN, window.began.0)?;
    tx.set_meta_i64(FORECAST, number(window.forecast))?;
    tx.set_meta_i64(DESTROYED, number(window.destroyed))
}
