-- What lies under an epoch, counted and found without reading all rows: within an epoch these indexes grow with the ids.
CREATE INDEX record_epoch ON record (epoch);
CREATE INDEX dek_epoch ON dek (epoch, id);
CREATE INDEX subject_epoch ON subject (epoch);
CREATE INDEX shipment_grant_epoch ON shipment_grant (epoch);
CREATE INDEX idempotency_epoch ON idempotency (epoch);
-- From a subject's key to its subject.
CREATE INDEX subject_dek ON subject (dek);

-- From a value of a findable field to its record, by a blind index of the epoch.
CREATE TABLE index_tag (
    id INTEGER PRIMARY KEY, record INTEGER NOT NULL, field INTEGER NOT NULL, tag BLOB NOT NULL, epoch INTEGER NOT NULL
);
CREATE INDEX index_tag_tag ON index_tag (tag);
CREATE INDEX index_tag_record ON index_tag (record);
CREATE INDEX index_tag_epoch ON index_tag (epoch);
