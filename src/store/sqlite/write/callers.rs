//! Writing callers and approvals. INVARIANT: as for every statement, it answers how many rows it changed.

use rusqlite::params;

use super::super::read::Reader;
use super::super::read::callers::approval;
use crate::domain::id::TenantId;
use crate::domain::time::Timestamp;
use crate::policy::approval::Approval;
use crate::policy::enrolment::Enrolment;
use crate::store::StoreError;
use crate::store::rows::callers::{StateColumns, hashes};
use crate::store::tx::Stamp;
use crate::store::tx::callers::CallerWrites;

impl CallerWrites for Reader<'_> {
    fn insert_enrolment(&self, row: &Enrolment, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_enrolment\nINSERT INTO caller (tenant, role, name, issuer, standing, pins, suspended, \
                    enrolled_by, line, since, version, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        self.change(
            "caller",
            text,
            params![
                row.id.tenant.as_str(),
                row.id.role as u8,
                row.id.name.as_str(),
                row.issuer.0,
                row.standing as u8,
                hashes(row.pins.keys().iter().map(|key| key.0)),
                hashes(row.suspended.iter().map(|certificate| certificate.0)),
                row.enrolled_by.as_ref().map(ToString::to_string),
                row.line.to_string(),
                row.since.0,
                row.version,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
            ],
        )
    }

    fn update_enrolment(&self, row: &Enrolment, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- update_enrolment\nUPDATE caller SET issuer = ?1, standing = ?2, pins = ?3, suspended = ?4, \
                    enrolled_by = ?5, line = ?6, since = ?7, version = ?8, epoch = ?9, mac = ?10 \
                    WHERE tenant = ?11 AND role = ?12 AND name = ?13 AND version = ?14";
        self.change(
            "caller",
            text,
            params![
                row.issuer.0,
                row.standing as u8,
                hashes(row.pins.keys().iter().map(|key| key.0)),
                hashes(row.suspended.iter().map(|certificate| certificate.0)),
                row.enrolled_by.as_ref().map(ToString::to_string),
                row.line.to_string(),
                row.since.0,
                row.version,
                stamp.epoch.0,
                stamp.mac.as_bytes(),
                row.id.tenant.as_str(),
                row.id.role as u8,
                row.id.name.as_str(),
                row.version.wrapping_sub(1),
            ],
        )
    }

    fn insert_approval(&self, row: &Approval, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- insert_approval\nINSERT INTO approval (tenant, id, verb, digest, about, asked_by, asked_key, \
                    asked_at, expires_at, state, said_by, said_key, said_at, used_at, epoch, mac) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
        let state = StateColumns::of(&row.state);
        self.change(
            "approval",
            text,
            params![
                row.tenant.as_str(),
                row.id.0,
                row.verb as u8,
                row.digest.0,
                row.about,
                row.asked.by.to_string(),
                row.asked.key.0,
                row.asked.at.0,
                row.expires_at.0,
                state.code,
                state.said.map(|said| said.by.to_string()),
                state.said.map(|said| said.key.0),
                state.said.map(|said| said.at.0),
                state.used_at.map(|at| at.0),
                stamp.epoch.0,
                stamp.mac.as_bytes(),
            ],
        )
    }

    fn update_approval(&self, row: &Approval, stamp: &Stamp) -> Result<usize, StoreError> {
        let text = "-- update_approval\nUPDATE approval SET state = ?1, said_by = ?2, said_key = ?3, said_at = ?4, \
                    used_at = ?5, epoch = ?6, mac = ?7 WHERE tenant = ?8 AND id = ?9";
        let state = StateColumns::of(&row.state);
        self.change(
            "approval",
            text,
            params![
                state.code,
                state.said.map(|said| said.by.to_string()),
                state.said.map(|said| said.key.0),
                state.said.map(|said| said.at.0),
                state.used_at.map(|at| at.0),
                stamp.epoch.0,
                stamp.mac.as_bytes(),
                row.tenant.as_str(),
                row.id.0,
            ],
        )
    }

    fn expire_approvals(
        &self,
        tenant: &TenantId,
        asked_before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Option<Approval>>, StoreError> {
        let text = "-- expire_approvals\nDELETE FROM approval WHERE tenant = ?1 AND id IN \
                    (SELECT id FROM approval WHERE tenant = ?1 AND asked_at < ?2 ORDER BY asked_at LIMIT ?3) RETURNING *";
        self.gone("approval", text, params![tenant.as_str(), asked_before.0, limit], approval)
    }
}
