-- Erasing: subjects that leave, what a receipt tells of a record that went, legal holds, and the statistics of a month.

-- A subject whose erasure was asked for; records after `unseen` are still to be looked at, NULL: none.
ALTER TABLE subject ADD COLUMN leaving_at INTEGER;
ALTER TABLE subject ADD COLUMN leaving_reason INTEGER;
ALTER TABLE subject ADD COLUMN leaving_story BLOB;
ALTER TABLE subject ADD COLUMN leaving_last INTEGER;
ALTER TABLE subject ADD COLUMN unseen INTEGER;
-- How many holds are in force on it and its records: one that was deleted is missed.
ALTER TABLE subject ADD COLUMN holds INTEGER NOT NULL DEFAULT 0;
CREATE INDEX subject_unseen ON subject (id) WHERE unseen IS NOT NULL;

-- `facts`: times, places in log and ledger, the keys that were destroyed. `story`: the subject's erasure it was part of.
ALTER TABLE tombstone ADD COLUMN facts BLOB;
ALTER TABLE tombstone ADD COLUMN story BLOB;
CREATE INDEX tombstone_story ON tombstone (story, digest) WHERE story IS NOT NULL;

-- `record` 0: all of the subject's. A lifted hold has lost its `reference`, and goes after its time.
CREATE TABLE hold (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, subject INTEGER NOT NULL, record INTEGER NOT NULL, kind INTEGER NOT NULL,
    reference BLOB NOT NULL, placed_by TEXT NOT NULL, placed_at INTEGER NOT NULL, lifted_at INTEGER,
    epoch INTEGER NOT NULL, mac BLOB NOT NULL
);
CREATE INDEX hold_subject ON hold (subject);
CREATE INDEX hold_tenant ON hold (tenant, id);

-- An open month has a wrapped `key` that tells its subjects apart and rows of `tally`; a closed one has the published `cube`
-- and neither. What was counted before, without its subjects, cannot be published.
CREATE TABLE month (
    tenant TEXT NOT NULL, month INTEGER NOT NULL, key_epoch INTEGER NOT NULL, key BLOB NOT NULL, closed_at INTEGER,
    cube BLOB NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, month)
) WITHOUT ROWID;

CREATE TABLE tally (
    tenant TEXT NOT NULL, month INTEGER NOT NULL, class INTEGER NOT NULL, country TEXT NOT NULL, who BLOB NOT NULL,
    count INTEGER NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, month, class, country, who)
) WITHOUT ROWID;

DROP TABLE statistic;
