-- Which policy a tenant's new records live by, and which one two people have let take its place.
CREATE TABLE policy_in_force (
    tenant TEXT PRIMARY KEY, version BLOB NOT NULL, since INTEGER NOT NULL, allowed BLOB,
    epoch INTEGER NOT NULL, mac BLOB NOT NULL
) WITHOUT ROWID;
