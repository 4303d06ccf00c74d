-- The number in `retained` under which a guest's files are kept once it is gone; NULL for a guest that is to stay, or whose
-- files are removed.
ALTER TABLE guests ADD COLUMN retain INTEGER;

-- Destroyed agents whose files are kept for a while.
CREATE TABLE retained (
    -- Part of the name of the files on the host. Never used again, also when old rows have gone.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    closure TEXT,
    limits TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    destroyed_at INTEGER NOT NULL,
    -- The running time from which on the files are kept.
    destroyed_running INTEGER NOT NULL,
    -- What they take of the disk, once it was measured.
    bytes INTEGER,
    -- The guest to which the files belong still, while it is being destroyed, or again, while it is being undeleted.
    guest TEXT REFERENCES guests (name) ON DELETE SET NULL,
    -- Whether the files are to be removed.
    doomed INTEGER NOT NULL DEFAULT 0 CHECK (doomed IN (0, 1)),
    -- The operation that removes them.
    operation INTEGER
) STRICT;

CREATE UNIQUE INDEX retained_by_guest ON retained (guest) WHERE guest IS NOT NULL;
