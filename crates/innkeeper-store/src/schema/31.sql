-- The visitors of a preview by command. NULL means those of its repository.
ALTER TABLE previews ADD COLUMN visibility TEXT;

-- Share links and tokens of previews that are not public. A number is never used again: cookies of visitors contain it.
CREATE TABLE preview_grants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slug TEXT NOT NULL REFERENCES previews (slug) ON DELETE CASCADE,
    -- 'share' or 'bypass'.
    kind TEXT NOT NULL,
    -- SHA-256 of its text.
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX preview_grants_by_slug ON preview_grants (slug);
