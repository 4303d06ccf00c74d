-- Repositories by GitHub's number, with the name that each has as far as is known. `previews` and `deliveries` hold the
-- name and change with it. Repositories of older rows are added when they are first seen.
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    -- Whether GitHub is to be queried for the name.
    to_check INTEGER NOT NULL DEFAULT 0 CHECK (to_check IN (0, 1)),
    deleted_at INTEGER
) STRICT;

-- All names that repositories had, in the order in which they were seen. The first repository of a name owns the secrets
-- that are filed under it.
CREATE TABLE repository_names (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL COLLATE NOCASE,
    id INTEGER NOT NULL,
    UNIQUE (name, id)
) STRICT;
