-- The log's complete subtrees of 256 entries and more (`audit::proof`), by the number of the entry behind their last one: appended
-- in order, two rows for 256 entries. No MAC: a proof made of them is checked against a head that has one.
CREATE TABLE audit_node (
    "end" INTEGER NOT NULL, level INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY ("end", level)
) WITHOUT ROWID;

-- Signed heads. `first` is the number of the tree's first entry in the whole log, `last` says that the tree is closed; the note
-- says both again, and its signature authenticates it.
CREATE TABLE checkpoint (
    first INTEGER NOT NULL, size INTEGER NOT NULL, last INTEGER NOT NULL, note TEXT NOT NULL, PRIMARY KEY (first, size)
) WITHOUT ROWID;
