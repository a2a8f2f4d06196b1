-- What is still to be told to webhooks, one row for each of them, written in the commit that it tells of and deleted once it was
-- taken or given up: work in progress. `at` is when it happened, `since` when the row was written; `due` 0 and no `rule`: the record
-- is gone.
CREATE TABLE announcement (
    id INTEGER PRIMARY KEY, hook TEXT NOT NULL, tenant TEXT NOT NULL, topic INTEGER NOT NULL, digest BLOB NOT NULL,
    class INTEGER NOT NULL, reason INTEGER NOT NULL, at INTEGER NOT NULL, due INTEGER NOT NULL, rule TEXT NOT NULL,
    since INTEGER NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL
);
CREATE INDEX announcement_hook ON announcement (hook);
CREATE INDEX announcement_epoch ON announcement (epoch);

-- Which due of a record a webhook was told of last, so that it is told once. No MAC: an index, which can make somebody hear of
-- something twice or not beforehand.
CREATE TABLE due_told (
    record INTEGER NOT NULL, hook TEXT NOT NULL, due INTEGER NOT NULL, PRIMARY KEY (record, hook)
) WITHOUT ROWID;
