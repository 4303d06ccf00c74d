-- The last ping of each webhook. GitHub sends one, with the webhook's settings, when a webhook is created.
CREATE TABLE pings (
    -- The repository or organization that the webhook belongs to.
    owner TEXT NOT NULL PRIMARY KEY COLLATE NOCASE,
    received_at INTEGER NOT NULL,
    -- The wrong settings, as the API's JSON.
    problems TEXT NOT NULL
) STRICT;
