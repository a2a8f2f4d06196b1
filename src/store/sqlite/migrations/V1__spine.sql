-- Ids grow with time (locality decides durable write speed); the token's digest and the tags are the only random indexes.
-- `epoch` and `mac` authenticate every other column of their row under that epoch's subkey.
CREATE TABLE meta (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE record (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, digest BLOB NOT NULL, subject INTEGER NOT NULL, class INTEGER NOT NULL,
    policy_version BLOB NOT NULL, stored_at INTEGER NOT NULL, revision INTEGER NOT NULL, dek INTEGER NOT NULL,
    fields INTEGER NOT NULL, facts BLOB NOT NULL, due INTEGER NOT NULL, version INTEGER NOT NULL,
    epoch INTEGER NOT NULL, mac BLOB NOT NULL
);
CREATE UNIQUE INDEX record_digest ON record (digest);
CREATE INDEX record_due ON record (due);
CREATE INDEX record_subject ON record (subject);

-- When SQLite moves rows to other pages it leaves their old bytes, which a later deletion does not reach. So a key is never moved:
-- `place` grows in the order of the commits (ids are given out before), and a row keeps its length, whatever its epoch:
-- `sealed_under` is the epoch plus 2^24, four bytes for any.
CREATE TABLE dek (
    place INTEGER PRIMARY KEY, id INTEGER NOT NULL, record INTEGER NOT NULL, sealed_under INTEGER NOT NULL,
    wrapped BLOB NOT NULL, epoch INTEGER NOT NULL GENERATED ALWAYS AS (sealed_under - 16777216) VIRTUAL
);
CREATE UNIQUE INDEX dek_id ON dek (id);
CREATE INDEX dek_record ON dek (record);

CREATE TABLE sealed (
    record INTEGER NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (record, part)
) WITHOUT ROWID;

CREATE TABLE subject (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, tag BLOB NOT NULL, dek INTEGER NOT NULL, reference BLOB NOT NULL,
    since INTEGER NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL
);
CREATE UNIQUE INDEX subject_tag ON subject (tag);

CREATE TABLE shipment_grant (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, record INTEGER NOT NULL, parcel INTEGER NOT NULL, carrier TEXT NOT NULL,
    tag BLOB, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, read_limit INTEGER NOT NULL, reads INTEGER NOT NULL,
    ended_at INTEGER, dek INTEGER NOT NULL, serial BLOB NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL
);
CREATE UNIQUE INDEX shipment_grant_tag ON shipment_grant (tag);
CREATE INDEX shipment_grant_record ON shipment_grant (record);

CREATE TABLE idempotency (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, request BLOB NOT NULL, record INTEGER NOT NULL, token BLOB NOT NULL,
    result BLOB NOT NULL, recorded_at INTEGER NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL
);
CREATE UNIQUE INDEX idempotency_digest ON idempotency (digest);
CREATE INDEX idempotency_record ON idempotency (record);

CREATE TABLE tombstone (
    digest BLOB PRIMARY KEY, tenant TEXT NOT NULL, class INTEGER NOT NULL, reason INTEGER NOT NULL, until INTEGER NOT NULL,
    epoch INTEGER NOT NULL, mac BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX tombstone_until ON tombstone (until);

-- The retention policies that records were collected under; a version is its text's SHA-256, so a row authenticates itself.
CREATE TABLE policy (version BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE statistic (
    tenant TEXT NOT NULL, class INTEGER NOT NULL, country TEXT NOT NULL, month INTEGER NOT NULL, count INTEGER NOT NULL,
    epoch INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, class, country, month)
) WITHOUT ROWID;

-- One row a group commit. `root` is the RFC 6962 tree hash over the first `size` entries of the log.
CREATE TABLE audit_batch (
    first INTEGER PRIMARY KEY, size INTEGER NOT NULL, at INTEGER NOT NULL, entries BLOB NOT NULL, root BLOB NOT NULL,
    mac BLOB NOT NULL
);
