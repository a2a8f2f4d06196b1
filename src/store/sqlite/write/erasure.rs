//! Writing holds, leaving subjects and statistics. INVARIANT: as for every statement, it answers how many rows it changed.

use rusqlite::params;

use super::super::read::{self, Reader};
use crate::domain::id::{HoldId, TenantId};
use crate::store::StoreError;
use crate::store::rows::SubjectRow;
use crate::store::rows::erasure::{HoldRow, MonthRow, MonthState, TallyRow};
use crate::store::tx::Stamp;
use crate::store::tx::erasure::ErasureWrites;

impl ErasureWrites for Reader<'_> {
    fn update_subject(&self, row: &SubjectRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- update_subject\nUPDATE subject SET leaving_at = ?1, leaving_reason = ?2, leaving_story = ?3, \
                    leaving_last = ?4, unseen = ?5, holds = ?6, epoch = ?7, mac = ?8 WHERE id = ?9";
        let leaving = row.leaving;
        let columns = params![
            leaving.map(|leaving| leaving.at.0),
            leaving.map(|leaving| leaving.reason.code()),
            leaving.map(|leaving| leaving.story.0),
            leaving.map(|leaving| leaving.last.0),
            row.unseen.map(|record| record.0),
            row.holds,
            stamp.epoch.0,
            stamp.mac.as_bytes(),
            row.id.0,
        ];
        self.change("subject", text, columns)
    }

    fn insert_hold(&self, row: &HoldRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_hold\nINSERT INTO hold (id, tenant, subject, record, kind, reference, placed_by, placed_at, \
                    lifted_at, epoch, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let columns = params![
            row.id.0,
            row.tenant.as_str(),
            row.subject.0,
            row.record.map_or(0, |record| record.0),
            row.kind.code(),
            row.reference,
            row.placed_by.to_string(),
            row.placed_at.0,
            row.lifted_at.map(|at| at.0),
            stamp.epoch.0,
            stamp.mac.as_bytes(),
        ];
        self.change("hold", text, columns)
    }

    fn update_hold(&self, row: &HoldRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- update_hold\nUPDATE hold SET reference = ?1, lifted_at = ?2, epoch = ?3, mac = ?4 WHERE id = ?5";
        let lifted_at = row.lifted_at.map(|at| at.0);
        self.change("hold", text, params![row.reference, lifted_at, stamp.epoch.0, stamp.mac.as_bytes(), row.id.0])
    }

    fn delete_hold(&self, id: HoldId) -> Result<usize, StoreError> {
        self.change("hold", "-- delete_hold\nDELETE FROM hold WHERE id = ?1", params![id.0])
    }

    fn put_month(&self, row: &MonthRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- put_month\nINSERT INTO month (tenant, month, key_epoch, key, closed_at, cube, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (tenant, month) DO UPDATE SET \
                    key_epoch = excluded.key_epoch, key = excluded.key, closed_at = excluded.closed_at, \
                    cube = excluded.cube, epoch = excluded.epoch, mac = excluded.mac";
        let (key_epoch, key, closed_at, cube) = match &row.state {
            MonthState::Open { epoch, key } => (epoch.0, key.as_slice(), None, &[][..]),
            MonthState::Closed { at, cube } => (0, &[][..], Some(at.0), cube.as_slice()),
        };
        let tenant = row.tenant.as_str();
        let columns = params![tenant, row.month, key_epoch, key, closed_at, cube, stamp.epoch.0, stamp.mac.as_bytes()];
        self.change("month", text, columns)
    }

    fn put_tally(&self, row: &TallyRow, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- put_tally\nINSERT INTO tally (tenant, month, class, country, who, count, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (tenant, month, class, country, who) \
                    DO UPDATE SET count = excluded.count, epoch = excluded.epoch, mac = excluded.mac";
        let (tenant, class, country) = (row.tenant.as_str(), row.cell.class.code(), &row.cell.country);
        let columns =
            params![tenant, row.month, class, country, row.who.0, row.count, stamp.epoch.0, stamp.mac.as_bytes()];
        self.change("tally", text, columns)
    }

    fn delete_tallies(
        &self,
        tenant: &TenantId,
        before: i64,
        limit: usize,
    ) -> Result<Vec<Option<TallyRow>>, StoreError> {
        let text = "-- delete_tallies\nDELETE FROM tally WHERE tenant = ?1 AND (month, class, country, who) IN \
                    (SELECT month, class, country, who FROM tally WHERE tenant = ?1 AND month < ?2 LIMIT ?3) RETURNING *";
        self.gone("tally", text, params![tenant.as_str(), before, limit], read::erasure::tally)
    }
}
