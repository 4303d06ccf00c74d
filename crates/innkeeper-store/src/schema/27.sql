-- Tokens of other machines. They are never deleted: the audit log refers to their numbers.
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    name TEXT NOT NULL,
    -- SHA-256 of the token's text.
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    role TEXT NOT NULL,
    -- The only repository whose previews the token may use.
    repo TEXT COLLATE NOCASE,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;
CREATE TRIGGER tokens_stay BEFORE DELETE ON tokens
BEGIN
    SELECT RAISE(ABORT, 'the number of a token is never used again');
END;
CREATE TRIGGER tokens_do_not_change BEFORE UPDATE ON tokens
WHEN OLD.revoked_at IS NOT NULL
    OR (NEW.id, NEW.name, NEW.digest, NEW.role) IS NOT (OLD.id, OLD.name, OLD.digest, OLD.role)
    OR NEW.repo IS NOT OLD.repo OR NEW.expires_at IS NOT OLD.expires_at
BEGIN
    SELECT RAISE(ABORT, 'a token only gets its last use and its revocation');
END;

-- Changes, and who requested them. Only the oldest rows are deleted, by age and number.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    began_running INTEGER NOT NULL,
    actor TEXT NOT NULL,
    -- The client's address; NULL for a client on the host.
    source TEXT,
    verb TEXT NOT NULL,
    object TEXT,
    -- 'ok' or the code of a failure; NULL while there is no response.
    result TEXT
) STRICT;
CREATE TRIGGER audit_does_not_change BEFORE UPDATE ON audit
WHEN OLD.result IS NOT NULL
    OR (NEW.seq, NEW.time, NEW.began_running, NEW.actor, NEW.verb)
        IS NOT (OLD.seq, OLD.time, OLD.began_running, OLD.actor, OLD.verb)
    OR NEW.source IS NOT OLD.source OR (OLD.object IS NOT NULL AND NEW.object IS NOT OLD.object)
BEGIN
    SELECT RAISE(ABORT, 'an audit entry only gets its result');
END;

-- The actor that created an agent. NULL for previews, and for agents from before.
ALTER TABLE guests ADD COLUMN owner TEXT;
