-- Events of pull requests that were accepted: GitHub was told that they are on disk.
CREATE TABLE deliveries (
    -- The order of arrival. A number is never used again, also when old rows have gone.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    -- X-GitHub-Delivery. A delivery is acted on once, whatever the code believes.
    id TEXT NOT NULL UNIQUE,
    -- GitHub compares names of repositories without case.
    repo TEXT NOT NULL COLLATE NOCASE,
    number INTEGER NOT NULL,
    -- What it says of the preview as a whole: 'present', 'absent', or nothing.
    intent TEXT,
    event TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    not_before INTEGER,
    failure TEXT,
    finished_at INTEGER,
    CHECK ((state = 'pending') = (finished_at IS NULL)),
    CHECK (state <> 'failed' OR failure IS NOT NULL)
) STRICT;

CREATE INDEX pending_deliveries ON deliveries (repo, number, seq) WHERE state = 'pending';
CREATE INDEX intents ON deliveries (repo, number, seq)
    WHERE intent IS NOT NULL AND state <> 'ignored';
CREATE INDEX finished_deliveries ON deliveries (seq) WHERE state <> 'pending';

-- What should be true of each preview, and what is known of it.
CREATE TABLE previews (
    -- The guest's name.
    slug TEXT PRIMARY KEY NOT NULL,
    repo TEXT NOT NULL COLLATE NOCASE,
    -- The pull request; nothing for a preview that was made by hand.
    number INTEGER,
    branch TEXT NOT NULL,
    head_repo TEXT,
    wanted_sha TEXT NOT NULL,
    live_sha TEXT,
    approved_sha TEXT,
    state TEXT NOT NULL,
    want TEXT NOT NULL,
    -- The key in `evaluations`. No foreign key: an evaluation can be forgotten and made again.
    evaluation TEXT,
    closure TEXT,
    live_closure TEXT,
    meta TEXT,
    live_meta TEXT,
    comment_id INTEGER,
    deployment_id INTEGER,
    fault TEXT,
    last_delivery TEXT,
    last_activity INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- A pull request has one preview, whatever the code believes.
    UNIQUE (repo, number)
) STRICT;

-- What configurations were evaluated and built to, by the hash of what they are made from.
CREATE TABLE evaluations (
    key TEXT PRIMARY KEY NOT NULL,
    closure TEXT NOT NULL,
    meta TEXT NOT NULL,
    built_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
