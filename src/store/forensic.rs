//! What a thief could do with the store's files and every key there is. INVARIANT: it only reads, goes by the rows as they lie
//! (those that nothing leads to any more included), and believes no state, timer or MAC: a value counts as lost exactly if
//! some key that the files still hold opens it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};

use super::rows::{DekRow, GrantRow, RecordRow, SubjectRow};
use super::tx::Reads;
use super::{StoreError, sqlite};
use crate::crypto::envelope::{Dek, Sealed, WrappedDek, open, unwrap};
use crate::crypto::keyring::Keyring;
use crate::crypto::mac::index_tag;
use crate::crypto::slot::{DekUse, Part, SealSlot};
use crate::domain::id::{DekId, GrantId, RecordId, Revision, SubjectId, TenantId};
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::Field;

/// Rows copied out of a database: all that is needed to read the values, but for the epoch keys.
#[derive(Default)]
pub struct Loot {
    records: BTreeMap<RecordId, RecordRow>,
    subjects: BTreeMap<SubjectId, SubjectRow>,
    grants: BTreeMap<GrantId, GrantRow>,
    deks: BTreeMap<DekId, DekRow>,
    sealed: BTreeMap<(RecordId, u8), Vec<u8>>,
    /// The highest id seen: ids grow, so what is new lies above it.
    last: i64,
}

/// Random bytes that a wrapped key or a sealed value starts with, and whose it is: where they still stand in a file, the
/// whole may stand.
pub struct Trace<'a> {
    pub record: TokenDigest,
    pub is_key: bool,
    pub bytes: &'a [u8],
}

/// How far the thief has come.
#[derive(Default, Debug)]
pub struct Haul {
    /// Data encryption keys that the stolen keyring unwrapped.
    pub keys: usize,
    /// Sealed values, those remembered from earlier among them.
    pub values: usize,
    /// The records of which some value was opened.
    pub opened: BTreeSet<TokenDigest>,
    /// The records of which the value of some field was opened that is remembered from earlier.
    pub remembered: BTreeSet<TokenDigest>,
}

impl Loot {
    /// Adds what has come into the database since the last look.
    pub fn gather(&mut self, database: &Path) -> Result<(), StoreError> {
        let ids = NewIds::after(database, self.last)?;
        sqlite::read_unheld(database, |reads| self.copy(reads, &ids))
    }

    pub fn records(&self) -> usize {
        self.records.len()
    }

    fn copy(&mut self, reads: &dyn Reads, ids: &NewIds) -> Result<(), StoreError> {
        for id in &ids.records {
            self.records.extend(reads.record(RecordId(*id))?.map(|(row, _)| (row.id, row)));
        }
        for id in &ids.subjects {
            self.subjects.extend(reads.subject(SubjectId(*id))?.map(|(row, _)| (row.id, row)));
        }
        for id in &ids.grants {
            self.grants.extend(reads.grant(GrantId(*id))?.map(|(row, _)| (row.id, row)));
        }
        for id in &ids.deks {
            self.deks.extend(reads.dek(DekId(*id))?.map(|row| (row.id, row)));
        }
        for (record, part) in &ids.parts {
            let record = RecordId(*record);
            self.sealed.extend(reads.sealed(record, *part)?.map(|bytes| ((record, *part), bytes)));
        }
        self.last = ids.last().max(self.last);
        Ok(())
    }

    /// What would show in a file's bytes that a key or a value is still there.
    pub fn traces(&self) -> Vec<Trace<'_>> {
        let digest = |id: &RecordId| self.records.get(id).map(|record| record.digest);
        let of_subjects: BTreeMap<_, _> = self.records.values().map(|record| (record.subject, record.digest)).collect();
        let of_subject_keys: BTreeMap<_, _> =
            self.subjects.values().filter_map(|row| Some((row.dek, *of_subjects.get(&row.id)?))).collect();
        let keys = self.deks.values().filter_map(|row| {
            let record = digest(&row.record).or_else(|| of_subject_keys.get(&row.id).copied())?;
            Some(Trace { record, is_key: true, bytes: start(&row.wrapped)? })
        });
        let value = |record: TokenDigest, bytes| Some(Trace { record, is_key: false, bytes: start(bytes)? });
        let fields = self.sealed.iter().filter_map(|((record, _), bytes)| value(digest(record)?, bytes));
        let serials = self.grants.values().filter_map(|row| value(digest(&row.record)?, &row.serial));
        let references = self.subjects.values().filter_map(|row| value(*of_subjects.get(&row.id)?, &row.reference));
        keys.chain(fields).chain(serials).chain(references).collect()
    }

    /// Every sealed value with its place and the records it tells of.
    fn values<'a>(&'a self, known: &'a Loot) -> Vec<(SealSlot<'a>, &'a [u8], Vec<TokenDigest>)> {
        let record = |id: &RecordId| self.records.get(id).or_else(|| known.records.get(id));
        let fields = self.sealed.iter().filter_map(|((id, part), bytes)| {
            let row = record(id)?;
            let part = Field::from_code(*part).map_or(Part::Token, Part::Field);
            let slot = SealSlot { tenant: &row.tenant, record: row.id, part, revision: row.revision, dek: row.dek };
            Some((slot, bytes.as_slice(), vec![row.digest]))
        });
        let serials = self.grants.values().filter_map(|grant| {
            let (part, revision) = (Part::Serial(grant.id), Revision(0));
            let slot = SealSlot { tenant: &grant.tenant, record: grant.record, part, revision, dek: grant.dek };
            Some((slot, grant.serial.as_slice(), vec![record(&grant.record)?.digest]))
        });
        let references = self.subjects.values().map(|row| {
            let (part, revision) = (Part::CustomerReference, Revision(0));
            let slot = SealSlot { tenant: &row.tenant, record: RecordId(0), part, revision, dek: row.dek };
            let told = self.records.values().chain(known.records.values()).filter(|record| record.subject == row.id);
            (slot, row.reference.as_slice(), told.map(|record| record.digest).collect())
        });
        fields.chain(serials).chain(references).collect()
    }

    /// The keys that lie in these files and that the keyring unwraps, each tried in every place it can have been wrapped for, and
    /// under every epoch, whatever the row says of its own.
    fn keys(&self, known: &Loot, keyring: &Keyring) -> BTreeMap<DekId, Dek> {
        let mut keys = BTreeMap::new();
        for dek in self.deks.values() {
            let wrapped = WrappedDek::from_bytes(dek.wrapped.clone());
            let grants = self.grants.values().chain(known.grants.values()).filter(|grant| grant.dek == dek.id);
            let uses: Vec<DekUse> = grants.map(|grant| DekUse::Grant(grant.id)).collect();
            let opened = keyring.epochs().find_map(|epoch| {
                let rows = [self, known].into_iter().filter_map(|loot| loot.records.get(&dek.record));
                let of_records = rows.flat_map(|row| {
                    let uses = uses.iter().copied().chain([DekUse::Revision(row.revision)]);
                    uses.map(|dek_use| row.wrap_slot(epoch.number(), dek.id, dek_use))
                });
                let rows = self.subjects.values().chain(known.subjects.values()).filter(|row| row.dek == dek.id);
                let of_subjects = rows.map(|row| row.wrap_slot(epoch.number()));
                of_records.chain(of_subjects).find_map(|slot| unwrap(epoch, &slot, &wrapped).ok())
            });
            keys.extend(opened.map(|key| (dek.id, key)));
        }
        keys
    }
}

/// More tries than this, and a value is tried with those keys alone that could be its own.
const TRIES: usize = 2_000_000;

/// Tries the keys that the stolen files still hold on every value that they hold or that `earlier` remembers: all keys on each,
/// or, where that is too much, the value's own key and all that are filed under its record: a value opens in its place alone, which
/// names its key.
pub fn attack(stolen: &Loot, earlier: &Loot, keyring: &Keyring) -> Haul {
    let keys = stolen.keys(earlier, keyring);
    let mut filed: BTreeMap<RecordId, Vec<&Dek>> = BTreeMap::new();
    for dek in stolen.deks.values() {
        filed.entry(dek.record).or_default().extend(keys.get(&dek.id));
    }
    // Subjects' keys, filed under no record.
    filed.remove(&RecordId(0));
    let values = stolen.sealed.len() + earlier.sealed.len();
    let all: Vec<&Dek> = if keys.len().saturating_mul(values) <= TRIES { keys.values().collect() } else { Vec::new() };
    let mut haul = Haul { keys: keys.len(), ..Haul::default() };
    for (values, is_remembered) in [(stolen.values(earlier), false), (earlier.values(stolen), true)] {
        for (slot, bytes, tells_of) in values {
            haul.values += 1;
            let sealed = Sealed::from_bytes(bytes.to_vec());
            // Its own first, which opens it if one does.
            let opens = |key: &&Dek| open(key, &slot, &sealed).is_ok();
            let others = filed.get(&slot.record).into_iter().flatten().chain(&all);
            if keys.get(&slot.dek).as_ref().is_some_and(opens) || others.copied().any(|key| opens(&key)) {
                if is_remembered && matches!(slot.part, Part::Field(_)) {
                    haul.remembered.extend(&tells_of);
                }
                haul.opened.extend(tells_of);
            }
        }
    }
    haul
}

/// What a dictionary of guesses finds in the blind indexes of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// Tags that the database holds.
    pub tags: usize,
    /// Those that some guess has led to, under some epoch of the keyring.
    pub met: usize,
}

/// Guesses values: each the kind of an index, and what it would be of.
pub fn dictionary(
    database: &Path,
    keyring: &Keyring,
    tenant: &TenantId,
    guesses: &[(&'static str, Vec<u8>)],
) -> Result<Met, StoreError> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|source| sql("forensic", source))?;
    let text = "-- tags\nSELECT tag FROM subject WHERE id > ?1 UNION ALL SELECT tag FROM index_tag WHERE id > ?1 \
                UNION ALL SELECT tag FROM shipment_grant WHERE id > ?1 AND tag IS NOT NULL";
    let tags: BTreeSet<[u8; 16]> = all(&connection, "tags", text, 0, |row| row.get(0))?.into_iter().collect();
    let epochs = || keyring.epochs().chain(keyring.prepared());
    let led = |epoch, (kind, value): &(&'static str, Vec<u8>)| index_tag(epoch, tenant, kind, value).0;
    let met: BTreeSet<[u8; 16]> = epochs()
        .flat_map(|epoch| guesses.iter().map(move |guess| led(epoch, guess)))
        .filter(|tag| tags.contains(tag))
        .collect();
    Ok(Met { tags: tags.len(), met: met.len() })
}

/// The nonce behind the format byte: 24 random bytes.
fn start(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(1..25)
}

/// What a database holds above an id.
struct NewIds {
    records: Vec<i64>,
    subjects: Vec<i64>,
    grants: Vec<i64>,
    deks: Vec<i64>,
    parts: Vec<(i64, u8)>,
}

impl NewIds {
    fn after(database: &Path, last: i64) -> Result<Self, StoreError> {
        let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|source| sql("forensic", source))?;
        let ids = |name, text: &str| all(&connection, name, text, last, |row| row.get(0));
        Ok(Self {
            records: ids("new_records", "-- new_records\nSELECT id FROM record WHERE id > ?1")?,
            subjects: ids("new_subjects", "-- new_subjects\nSELECT id FROM subject WHERE id > ?1")?,
            grants: ids("new_grants", "-- new_grants\nSELECT id FROM shipment_grant WHERE id > ?1")?,
            deks: ids("new_deks", "-- new_deks\nSELECT id FROM dek WHERE id > ?1")?,
            parts: {
                let text = "-- new_parts\nSELECT record, part FROM sealed WHERE record > ?1";
                all(&connection, "new_parts", text, last, |row| Ok((row.get(0)?, row.get(1)?)))?
            },
        })
    }

    fn last(&self) -> i64 {
        let ids = [&self.records, &self.subjects, &self.grants, &self.deks];
        ids.into_iter().flatten().copied().max().unwrap_or(0)
    }
}

fn all<T>(
    connection: &Connection,
    name: &'static str,
    text: &str,
    after: i64,
    decode: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare(text).map_err(|source| sql(name, source))?;
    let rows = statement.query_map([after], |row| decode(row)).map_err(|source| sql(name, source))?;
    rows.collect::<rusqlite::Result<_>>().map_err(|source| sql(name, source))
}

fn sql(statement: &'static str, source: rusqlite::Error) -> StoreError {
    StoreError::Sql { statement, source: Arc::new(source) }
}
