//! Reading the outbox of the webhooks. INVARIANT: as for every row, a column that does not decode is named without its value.

use rusqlite::{Row as SqlRow, params};

use super::{Decoded, Reader, array, stamped, tenant};
use crate::domain::announcement::{Announcement, News};
use crate::domain::id::{AnnouncementId, HookName, RecordId};
use crate::domain::time::Timestamp;
use crate::domain::token::TokenDigest;
use crate::domain::vocabulary::{Class, EraseReason, Topic};
use crate::store::StoreError;
use crate::store::rows::webhook::{AnnouncementRow, ComingDue, Waiting};
use crate::store::tx::Stamped;
use crate::store::tx::webhook::{Numbered, WebhookReads};

impl WebhookReads for Reader<'_> {
    fn announcements(&self, hook: &HookName, limit: usize) -> Result<Numbered<Stamped<AnnouncementRow>>, StoreError> {
        let text = "-- announcements\nSELECT * FROM announcement WHERE hook = ?1 ORDER BY id LIMIT ?2";
        self.all("announcement", text, params![hook.as_str(), limit], |row| {
            let id = AnnouncementId(row.get("id")?);
            let corrupt = |column| StoreError::Corrupt { table: "announcement", column };
            // A column of another type is an error of SQLite's, and this row's own too.
            let decoded = stamped(row, announcement).unwrap_or(Err("row"));
            Ok(Ok((id, decoded.map_err(corrupt))))
        })
    }

    fn hooks_heard_of(&self) -> Result<Vec<(String, String)>, StoreError> {
        let text = "-- hooks_heard_of\nSELECT DISTINCT hook, tenant FROM announcement";
        let pairs = self.all("announcement", text, [], |row| Ok(Ok(plain(row, "hook")?.zip(plain(row, "tenant")?))))?;
        Ok(pairs.into_iter().flatten().collect())
    }

    fn hooks_told(&self) -> Result<Vec<String>, StoreError> {
        let text = "-- hooks_told\nSELECT DISTINCT hook FROM due_told";
        Ok(self.all("due_told", text, [], |row| plain(row, "hook").map(Ok))?.into_iter().flatten().collect())
    }

    fn waiting(&self) -> Result<Waiting, StoreError> {
        let text = "-- waiting\nSELECT (SELECT COUNT(*) FROM announcement), \
                    (SELECT CAST(since AS INTEGER) FROM announcement ORDER BY id LIMIT 1)";
        let waiting = self.first("announcement", text, [], |row| {
            Ok(Ok(Waiting { announcements: row.get(0)?, since: row.get::<_, Option<i64>>(1)?.map(Timestamp) }))
        })?;
        Ok(waiting.unwrap_or_default())
    }

    fn coming_due(
        &self,
        hook: &HookName,
        after: (Timestamp, RecordId),
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ComingDue>, StoreError> {
        let ((due, id), hook) = (after, hook.as_str());
        let mut found = self.all("record", COMING_DUE_THEN, params![hook, due.0, id.0, until.0, limit], coming)?;
        let left = limit - found.len();
        found.extend(self.all("record", COMING_DUE_LATER, params![hook, due.0, until.0, left], coming)?);
        Ok(found)
    }
}

// Two searches: SQLite finds a place among a million equal dues only by an equation.
const COMING_DUE_THEN: &str = "-- coming_due\nSELECT r.id, CAST(r.due AS INTEGER) AS due, r.tenant, \
    CAST(t.due AS INTEGER) AS told FROM record AS r LEFT JOIN due_told AS t ON t.record = r.id AND t.hook = ?1 \
    WHERE r.due = ?2 AND r.id > ?3 AND r.due <= ?4 ORDER BY r.id LIMIT ?5";
const COMING_DUE_LATER: &str = "-- coming_due\nSELECT r.id, CAST(r.due AS INTEGER) AS due, r.tenant, \
    CAST(t.due AS INTEGER) AS told FROM record AS r LEFT JOIN due_told AS t ON t.record = r.id AND t.hook = ?1 \
    WHERE r.due > ?2 AND r.due <= ?3 ORDER BY r.due, r.id LIMIT ?4";

fn coming(row: &SqlRow<'_>) -> Decoded<ComingDue> {
    Ok(Ok(ComingDue {
        record: RecordId(row.get("id")?),
        due: Timestamp(row.get("due")?),
        tenant: tenant(row, "tenant")?,
        told: row.get::<_, Option<i64>>("told")?.map(Timestamp),
    }))
}

/// A text, if it is one.
fn plain(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Option<String>> {
    Ok(row.get_ref(column)?.as_str().ok().map(str::to_owned))
}

pub(super) fn announcement(row: &SqlRow<'_>) -> Decoded<AnnouncementRow> {
    let Some(hook) = row.get_ref("hook")?.as_str().ok().and_then(|text| text.parse().ok()) else {
        return Ok(Err("hook"));
    };
    let Some(topic) = Topic::from_code(row.get("topic")?) else { return Ok(Err("topic")) };
    let news = match topic {
        Topic::Erased if row.get::<_, i64>("due")? != 0 => return Ok(Err("due")),
        Topic::Erased if !row.get::<_, String>("rule")?.is_empty() => return Ok(Err("rule")),
        Topic::Erased => News::Erased,
        Topic::DueSoon => News::DueSoon { due: Timestamp(row.get("due")?), rule: row.get("rule")? },
    };
    let Some(tenant) = tenant(row, "tenant")? else { return Ok(Err("tenant")) };
    let Some(digest) = array(row, "digest")? else { return Ok(Err("digest")) };
    let class = match row.get("class")? {
        0 => None,
        code => match Class::from_code(code) {
            Some(class) => Some(class),
            None => return Ok(Err("class")),
        },
    };
    let Some(reason) = EraseReason::from_code(row.get("reason")?) else { return Ok(Err("reason")) };
    let (record, at) = (TokenDigest(digest), Timestamp(row.get("at")?));
    let said = Announcement { tenant, record, class, reason, at, news };
    let (id, since) = (AnnouncementId(row.get("id")?), Timestamp(row.get("since")?));
    Ok(Ok(AnnouncementRow { id, hook, said, since }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Connection, StatementStatus};

    /// A catalogue that was imported on one day is due on one.
    #[test]
    fn a_page_among_many_equal_dues_costs_what_the_first_one_does() {
        let connection = Connection::open_in_memory().unwrap();
        let tables = "CREATE TABLE record (id INTEGER PRIMARY KEY, due INTEGER NOT NULL, tenant TEXT NOT NULL);
                      CREATE INDEX record_due ON record (due);
                      CREATE TABLE due_told (record INTEGER, hook TEXT, due INTEGER, PRIMARY KEY (record, hook)) WITHOUT ROWID;
                      WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
                      INSERT INTO record SELECT n, 7, 'kitchenware' FROM n;";
        connection.execute_batch(tables).unwrap();
        let (reader, hook) = (Reader { connection: &connection }, "shop".parse().unwrap());
        let steps = || {
            let of = |text: &str| connection.prepare_cached(text).unwrap().reset_status(StatementStatus::VmStep);
            [COMING_DUE_THEN, COMING_DUE_LATER].map(of).iter().sum::<i32>()
        };
        let page = |after: i64| {
            let found = reader.coming_due(&hook, (Timestamp(7), RecordId(after)), Timestamp(9), 100).unwrap();
            let ids: Vec<i64> = found.iter().map(|coming| coming.record.0).collect();
            assert_eq!(ids, (after + 1..=after + 100).collect::<Vec<_>>());
            steps()
        };
        let (first, last) = (page(0), page(19_000));
        assert!(last <= 2 * first, "{first} steps for the first page, {last} for a late one");
    }
}
