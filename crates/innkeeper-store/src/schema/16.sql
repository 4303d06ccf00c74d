-- How the wanted commit of a preview comes up.

-- The number of the last attempt to bring a commit up.
ALTER TABLE previews ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0);
-- When the wanted commit was queued, and when the state began.
ALTER TABLE previews ADD COLUMN began_at INTEGER;
ALTER TABLE previews ADD COLUMN state_since INTEGER;
-- When the live commit came up, and the microseconds that it took.
ALTER TABLE previews ADD COLUMN live_at INTEGER;
ALTER TABLE previews ADD COLUMN live_after INTEGER CHECK (live_after >= 0);
-- The packages of the live closure that differ from the one before, as the API's JSON.
ALTER TABLE previews ADD COLUMN changes TEXT;

-- Checks of commits on GitHub that have not ended there, so that each one ends.
CREATE TABLE checks (
    repo TEXT NOT NULL COLLATE NOCASE,
    number INTEGER NOT NULL,
    -- The check's name: a pull request can have several.
    name TEXT NOT NULL,
    sha TEXT NOT NULL,
    -- The situation to report, in the API's words; nothing while a preview reports its own.
    situation TEXT,
    PRIMARY KEY (repo, number, name, sha)
) STRICT, WITHOUT ROWID;
