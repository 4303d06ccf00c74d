-- The time of the last visit through a preview's URL; NULL before the first one.
ALTER TABLE previews ADD COLUMN visited_at INTEGER;

-- Prefixes of extra hosts that previews had before some were reserved: their repositories keep them.
CREATE TABLE older_prefixes (
    -- GitHub compares names of repositories without case.
    repo TEXT NOT NULL COLLATE NOCASE,
    prefix TEXT NOT NULL,
    PRIMARY KEY (repo, prefix)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO older_prefixes
    SELECT repo, json_extract(host.value, '$.prefix')
    FROM previews, json_each(coalesce(previews.live_meta, previews.meta), '$.extraHosts') AS host
    WHERE json_extract(host.value, '$.prefix') IS NOT NULL;
