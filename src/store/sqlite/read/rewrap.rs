//! Reading what lies under an epoch. INVARIANT: rows are counted in every table that has an epoch, known here or not, so that
//! none is forgotten when an epoch is destroyed.

use rusqlite::params;

use super::callers::{approval, enrolment};
use super::erasure::{hold, month, tally};
use super::index::index_row;
use super::retention::policy_in_force;
use super::webhook::announcement;
use super::{Reader, dek, grant, record, sql, stamped, subject, tombstone};
use crate::domain::id::{DekId, Epoch};
use crate::store::StoreError;
use crate::store::rows::erasure::{MonthRow, TallyRow};
use crate::store::rows::retention::PolicyInForceRow;
use crate::store::rows::{DekRow, GrantRow, IndexRow, MetaRow, SubjectRow};
use crate::store::tx::Stamped;
use crate::store::tx::rewrap::{Page, RewrapReads, RowKey, RowsUnder, StampedRow, Table};

impl RewrapReads for Reader<'_> {
    fn has_tables(&self) -> Result<bool, StoreError> {
        let text = "-- has_tables\nSELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'meta')";
        Ok(self.first("sqlite_schema", text, [], |row| row.get(0).map(Ok))?.unwrap_or(false))
    }

    fn rows_under(&self, epoch: Option<Epoch>) -> Result<Vec<RowsUnder>, StoreError> {
        let tables = "-- epoch_tables\nSELECT name FROM sqlite_schema AS s WHERE type = 'table' AND EXISTS \
                      (SELECT 1 FROM pragma_table_xinfo(s.name) AS c WHERE c.name = 'epoch') ORDER BY name";
        let tables: Vec<String> = self.all("sqlite_schema", tables, [], |row| row.get(0).map(Ok))?;
        let mut found = Vec::new();
        for table in tables {
            let text = match epoch {
                Some(_) => format!("-- rows_under\nSELECT ?1, COUNT(*) FROM {table} WHERE epoch = ?1"),
                None => format!("-- rows_under\nSELECT epoch, COUNT(*) FROM {table} WHERE ?1 IS NULL GROUP BY epoch"),
            };
            let failed = |source| sql("rows_under", source);
            let mut statement = self.connection.prepare_cached(&text).map_err(failed)?;
            let row = |row: &rusqlite::Row<'_>| Ok((Epoch(row.get(0)?), row.get(1)?));
            let rows = statement.query_map(params![epoch.map(|epoch| epoch.0)], row).map_err(failed)?;
            for row in rows {
                let (epoch, rows) = row.map_err(failed)?;
                if rows > 0 {
                    found.push(RowsUnder { table: table.clone(), epoch, rows });
                }
            }
        }
        Ok(found)
    }

    fn stamped_under(&self, table: Table, page: Page) -> Result<Vec<StampedRow>, StoreError> {
        let params = params![page.epoch.0, page.limit, page.after];
        match table {
            Table::Record => {
                let text = "-- records_under\nSELECT * FROM record WHERE epoch = ?1 AND id > ?3 ORDER BY id LIMIT ?2";
                let rows = self.all("record", text, params, |row| stamped(row, record))?;
                Ok(rows.into_iter().map(|row| StampedRow::of(|row| RowKey::Record(row.id), row)).collect())
            }
            Table::Tombstone => {
                let text =
                    "-- tombstones_under\nSELECT * FROM tombstone WHERE epoch = ?1 ORDER BY digest LIMIT ?2 OFFSET ?3";
                let rows = self.all("tombstone", text, params, |row| stamped(row, tombstone))?;
                Ok(rows.into_iter().map(|row| StampedRow::of(|row| RowKey::Tombstone(row.digest), row)).collect())
            }
            Table::Hold => {
                let text = "-- holds_under\nSELECT * FROM hold WHERE epoch = ?1 AND id > ?3 ORDER BY id LIMIT ?2";
                let rows = self.all("hold", text, params, |row| stamped(row, hold))?;
                Ok(rows.into_iter().map(|row| StampedRow::of(|row| RowKey::Hold(row.id), row)).collect())
            }
            Table::Month => {
                let text = "-- closed_months_under\nSELECT * FROM month WHERE epoch = ?1 AND closed_at IS NOT NULL \
                            ORDER BY tenant, month LIMIT ?2 OFFSET ?3";
                let rows = self.all("month", text, params, |row| stamped(row, month))?;
                let key = |row: &MonthRow| RowKey::Month(row.tenant.clone(), row.month);
                Ok(rows.into_iter().map(|row| StampedRow::of(key, row)).collect())
            }
            Table::Tally => {
                let text = "-- tallies_under\nSELECT * FROM tally WHERE epoch = ?1 \
                            ORDER BY tenant, month, class, country, who LIMIT ?2 OFFSET ?3";
                let rows = self.all("tally", text, params, |row| stamped(row, tally))?;
                let key = |row: &TallyRow| RowKey::Tally(row.tenant.clone(), row.month, row.cell.clone(), row.who);
                Ok(rows.into_iter().map(|row| StampedRow::of(key, row)).collect())
            }
            Table::Meta => {
                let text = "-- metas_under\nSELECT * FROM meta WHERE epoch = ?1 ORDER BY key LIMIT ?2 OFFSET ?3";
                let rows = self.all("meta", text, params, |row| {
                    stamped(row, |row| {
                        let key: String = row.get("key")?;
                        Ok(Ok(MetaRow { key: key.into(), value: row.get("value")? }))
                    })
                })?;
                let key = |row: &MetaRow| RowKey::Meta(row.key.clone().into_owned());
                Ok(rows.into_iter().map(|row| StampedRow::of(key, row)).collect())
            }
            Table::Caller => {
                let text = "-- callers_under\nSELECT * FROM caller WHERE epoch = ?1 ORDER BY tenant, role, name LIMIT ?2 OFFSET ?3";
                let rows = self.all("caller", text, params, |row| stamped(row, enrolment))?;
                Ok(rows.into_iter().map(|row| StampedRow::of(|row| RowKey::Caller(row.id.clone()), row)).collect())
            }
            Table::Approval => {
                let text = "-- approvals_under\nSELECT * FROM approval WHERE epoch = ?1 ORDER BY tenant, id LIMIT ?2 OFFSET ?3";
                let rows = self.all("approval", text, params, |row| stamped(row, approval))?;
                let key = |row: &crate::policy::approval::Approval| RowKey::Approval(row.tenant.clone(), row.id);
                Ok(rows.into_iter().map(|row| StampedRow::of(key, row)).collect())
            }
            Table::Announcement => {
                let text = "-- announcements_under\nSELECT * FROM announcement WHERE epoch = ?1 AND id > ?3 ORDER BY id LIMIT ?2";
                let rows = self.all("announcement", text, params, |row| stamped(row, announcement))?;
                Ok(rows.into_iter().map(|row| StampedRow::of(|row| RowKey::Announcement(row.id), row)).collect())
            }
            Table::PolicyInForce => {
                let text = "-- policies_under\nSELECT * FROM policy_in_force WHERE epoch = ?1 ORDER BY tenant LIMIT ?2 OFFSET ?3";
                let rows = self.all("policy_in_force", text, params, |row| stamped(row, policy_in_force))?;
                let key = |row: &PolicyInForceRow| RowKey::PolicyInForce(row.tenant.clone());
                Ok(rows.into_iter().map(|row| StampedRow::of(key, row)).collect())
            }
        }
    }

    fn deks_under(&self, page: Page) -> Result<Vec<DekRow>, StoreError> {
        let text = "-- deks_under\nSELECT * FROM dek WHERE epoch = ?1 AND id > ?3 ORDER BY id LIMIT ?2";
        self.all("dek", text, params![page.epoch.0, page.limit, page.after], dek)
    }

    fn subjects_under(&self, page: Page) -> Result<Vec<Stamped<SubjectRow>>, StoreError> {
        let text = "-- subjects_under\nSELECT * FROM subject WHERE epoch = ?1 AND id > ?3 ORDER BY id LIMIT ?2";
        self.all("subject", text, params![page.epoch.0, page.limit, page.after], |row| stamped(row, subject))
    }

    fn grants_under(&self, page: Page) -> Result<Vec<Stamped<GrantRow>>, StoreError> {
        let text = "-- grants_under\nSELECT * FROM shipment_grant WHERE epoch = ?1 AND id > ?3 ORDER BY id LIMIT ?2";
        self.all("shipment_grant", text, params![page.epoch.0, page.limit, page.after], |row| stamped(row, grant))
    }

    fn index_under(&self, page: Page) -> Result<Vec<IndexRow>, StoreError> {
        let text = "-- index_under\nSELECT * FROM index_tag WHERE epoch = ?1 AND id > ?3 ORDER BY id LIMIT ?2";
        self.all("index_tag", text, params![page.epoch.0, page.limit, page.after], index_row)
    }

    fn months_under(&self, page: Page) -> Result<Vec<Stamped<MonthRow>>, StoreError> {
        let text = "-- months_under\nSELECT * FROM month WHERE (epoch = ?1 OR key_epoch = ?1) AND closed_at IS NULL \
                    ORDER BY tenant, month LIMIT ?2 OFFSET ?3";
        self.all("month", text, params![page.epoch.0, page.limit, page.after], |row| stamped(row, month))
    }

    fn subject_of_dek(&self, id: DekId) -> Result<Option<Stamped<SubjectRow>>, StoreError> {
        let text = "-- subject_of_dek\nSELECT * FROM subject WHERE dek = ?1";
        self.first("subject", text, params![id.0], |row| stamped(row, subject))
    }
}
