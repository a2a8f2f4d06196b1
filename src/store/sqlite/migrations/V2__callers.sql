-- Who may come in, and what waits for a second person's word. Few rows, changed rarely, kept for as long as anybody asks.
CREATE TABLE caller (
    tenant TEXT NOT NULL, role INTEGER NOT NULL, name TEXT NOT NULL, issuer BLOB NOT NULL, standing INTEGER NOT NULL,
    pins BLOB NOT NULL, suspended BLOB NOT NULL, enrolled_by TEXT, line TEXT NOT NULL, since INTEGER NOT NULL,
    version INTEGER NOT NULL, epoch INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, role, name)
) WITHOUT ROWID;

CREATE TABLE approval (
    tenant TEXT NOT NULL, id BLOB NOT NULL, verb INTEGER NOT NULL, digest BLOB NOT NULL, about TEXT NOT NULL,
    asked_by TEXT NOT NULL, asked_key BLOB NOT NULL, asked_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    state INTEGER NOT NULL, said_by TEXT, said_key BLOB, said_at INTEGER, used_at INTEGER,
    epoch INTEGER NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX approval_asked_at ON approval (tenant, asked_at);
