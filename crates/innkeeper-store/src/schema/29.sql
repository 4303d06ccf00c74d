-- Secrets of which a preview's guest has a former value. Rows are deleted when the guest receives the present values.
CREATE TABLE stale_secrets (
    -- Grows with each change, also of the same secret.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    slug TEXT NOT NULL REFERENCES previews (slug) ON DELETE CASCADE,
    name TEXT NOT NULL,
    UNIQUE (slug, name)
) STRICT;
