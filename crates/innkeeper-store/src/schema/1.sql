-- How slots are counted: one row.
CREATE TABLE numbering (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- The subnet that the guests have their addresses from.
    subnet TEXT NOT NULL,
    -- The highest slot given out so far. It never goes down.
    counter INTEGER NOT NULL CHECK (counter >= 0)
) STRICT;

-- What should be true of each guest.
CREATE TABLE guests (
    name TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    -- A slot belongs to one guest, whatever the code believes.
    slot INTEGER NOT NULL UNIQUE,
    want TEXT NOT NULL,
    source TEXT NOT NULL,
    closure TEXT,
    limits TEXT NOT NULL,
    ssh_host_key TEXT,
    fault TEXT,
    created_at INTEGER NOT NULL
) STRICT;

-- Slots that had an owner and have none now. The order in which they became free is `freed`, whatever
-- the clock says.
CREATE TABLE freed_slots (
    slot INTEGER PRIMARY KEY NOT NULL,
    freed INTEGER NOT NULL UNIQUE CHECK (freed > 0)
) STRICT;

-- Slots that an older installation's tracking files hold. One file may hold two, if it contradicts itself.
CREATE TABLE legacy_slots (
    slot INTEGER NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (slot, source)
) STRICT, WITHOUT ROWID;

-- What was asked for. Numbers are never used again, also when old rows have gone.
CREATE TABLE operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guest TEXT,
    verb TEXT NOT NULL,
    state TEXT NOT NULL,
    actor TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    failure TEXT,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK ((state = 'failed') = (failure IS NOT NULL))
) STRICT;

-- Of each guest at most one operation runs, whatever the code believes. Builds concern no guest.
CREATE UNIQUE INDEX running_operations ON operations (guest) WHERE state = 'running';

-- What happened.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    operation INTEGER,
    guest TEXT,
    kind TEXT NOT NULL
) STRICT;

CREATE INDEX events_of_operation ON events (operation, seq) WHERE operation IS NOT NULL;
CREATE INDEX events_of_guest ON events (guest, seq) WHERE guest IS NOT NULL;

-- Flake outputs that were built before, and what they were built from.
CREATE TABLE closures (
    installable TEXT PRIMARY KEY NOT NULL,
    closure TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    built_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
