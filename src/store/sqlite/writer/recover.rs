//! What a start finds: whether the database's own words on its log, its ledger and its state agree with what they are. INVARIANT: a
//! store that is another's, older than it may be, or has lost a part of itself does not start.

use rusqlite::Connection;

use super::super::read::Reader;
use super::super::sql;
use crate::audit::log::Tip;
use crate::crypto::keyring::Keyring;
use crate::domain::id::Epoch;
use crate::store::StoreError;
use crate::store::ids::LOST;
use crate::store::ledger::{Ledger, too_old};
use crate::store::state::{State as Sums, tally};
use crate::store::tx::{Places, Tx};

/// What a start finds.
pub(super) struct Recovered {
    pub(super) tip: Tip,
    pub(super) sums: Sums,
    /// An earlier build's store: its log and its state are to be written anew.
    pub(super) adopted: bool,
    /// The first id that nobody can have.
    pub(super) bound: i64,
    /// The store is new.
    pub(super) fresh: bool,
}

/// Checks that what the database remembers of the log, the ledger and its own state agrees with what they are.
pub(super) fn recover(connection: &Connection, keyring: &Keyring, ledger: &Ledger) -> Result<Recovered, StoreError> {
    let rows = Reader { connection };
    let tx = Tx::new(&rows, &rows, keyring, Places::default());
    let newest = "-- newest_epoch\nSELECT COALESCE(MAX(epoch), 0) FROM meta";
    let newest: u32 =
        connection.query_row(newest, [], |row| row.get(0)).map_err(|source| sql("newest_epoch", source))?;
    if newest > keyring.active().number().0 {
        return Err(StoreError::Refused(format!(
            "this database was written under epoch {newest}, which the keyring does not hold: it is an old copy, or another's"
        )));
    }
    let oldest = "-- oldest_epoch\nSELECT COALESCE(MIN(epoch), 0) FROM meta";
    let oldest = connection.query_row(oldest, [], |row| row.get(0)).map_err(|source| sql("oldest_epoch", source))?;
    if keyring.has_destroyed(Epoch(oldest)) {
        return Err(StoreError::Refused(format!(
            "this database was last written under epoch {oldest}, whose key was destroyed since: it is a copy older than \
             backups are kept, and nobody can open it"
        )));
    }
    let last = last_head(connection)?;
    // From the first entry of the log on, what the store remembers of itself is there; a row that is not was deleted.
    let remembered = |key: &'static str, fresh: i64| match (tx.meta_i64(key)?, &last) {
        (Some(value), _) => Ok(value),
        (None, None) => Ok(fresh),
        (None, Some(_)) => Err(StoreError::Refused(format!("the database has lost its own note of {key}"))),
    };
    remembered("keyring_generation", 0)?;
    let applied = remembered("ledger_applied", 0)?;
    if last.is_none() && tx.meta_i64("ledger_applied")?.is_none() && ledger.last() > 0 {
        return Err(StoreError::Refused(format!(
            "the database is new, but the erasure ledger beside it tells of {} erasures: is the data disk mounted? To \
             begin anew, begin with a new ledger",
            ledger.last()
        )));
    }
    if u64::try_from(applied).unwrap_or(0) > ledger.last() {
        return Err(StoreError::Refused(format!(
            "the erasure ledger ends at entry {}, but this database has applied entry {applied}: the ledger was cut or \
             replaced; bring the newest copy back",
            ledger.last()
        )));
    }
    if u64::try_from(applied).unwrap_or(0) < ledger.begins_after() {
        return Err(too_old(ledger.begins_after()));
    }
    let broken = || StoreError::Refused("the audit log's frontier does not fit its last head".to_owned());
    let tip = tx.audit_tip()?;
    match last {
        None if tip.entries() == 0 => {}
        // Behind a cut the next tree has no entries yet.
        Some((size, root)) if size == tip.entries() && (root == tip.frontier.root() || size == tip.first) => {}
        _ => return Err(broken()),
    }
    let (sums, adopted) = recover_sums(&rows, &tx, &tip, keyring)?;
    let fresh = tx.meta_i64("ledger_applied")?.is_none();
    let bound = remembered("next_id", 1)?;
    // An older copy goes on where no number was ever given out: the ledger may know what the lost ones stood for.
    let is_behind = u64::try_from(applied).unwrap_or(0) < ledger.last();
    let bound = if is_behind { bound.saturating_add(LOST) } else { bound };
    Ok(Recovered { tip, sums, adopted, bound, fresh })
}

/// The state as saved; made from the rows where an earlier build did not keep it.
fn recover_sums(rows: &Reader<'_>, tx: &Tx<'_>, tip: &Tip, keyring: &Keyring) -> Result<(Sums, bool), StoreError> {
    let is_earlier = tip.is_unnamed();
    match tx.state()? {
        Some((sums, _)) if sums.entries != tip.entries() => Err(StoreError::Refused(format!(
            "the store's state is from when the log had {} entries, and it has {}",
            sums.entries,
            tip.entries()
        ))),
        Some((sums, tables)) if tables == crate::store::state::TABLES.len() => Ok((sums, is_earlier)),
        None if tip.entries() > 0 && !is_earlier => {
            Err(StoreError::Refused("the database has lost its own note of its state".to_owned()))
        }
        known => {
            let (mut sums, tables) = known.unwrap_or_default();
            sums.adopt(tables, &tally(rows, keyring.signer().state())?);
            Ok((sums, true))
        }
    }
}

fn last_head(connection: &Connection) -> Result<Option<(u64, [u8; 32])>, StoreError> {
    let text = "-- last_head\nSELECT size, root FROM audit_batch ORDER BY first DESC LIMIT 1";
    rusqlite::OptionalExtension::optional(connection.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(|source| sql("last_head", source))
}
