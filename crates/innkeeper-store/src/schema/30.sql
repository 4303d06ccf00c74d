-- People who have logged in, by GitHub's numbers of their accounts.
CREATE TABLE persons (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    -- At the last login.
    login TEXT NOT NULL COLLATE NOCASE,
    -- The organizations and teams at the last login that the configuration named, as JSON.
    groups TEXT NOT NULL
) STRICT;

-- Sessions of people are tokens of other kinds.
ALTER TABLE tokens ADD COLUMN kind TEXT NOT NULL DEFAULT 'token';
ALTER TABLE tokens ADD COLUMN person INTEGER REFERENCES persons (id);
DROP TRIGGER tokens_stay;
-- The audit log refers to people rather than to their sessions.
CREATE TRIGGER tokens_stay BEFORE DELETE ON tokens WHEN OLD.kind = 'token'
BEGIN
    SELECT RAISE(ABORT, 'the number of a token is never used again');
END;
CREATE TRIGGER sessions_do_not_change BEFORE UPDATE ON tokens
WHEN (NEW.kind, NEW.person) IS NOT (OLD.kind, OLD.person)
BEGIN
    SELECT RAISE(ABORT, 'a token only gets its last use and its revocation');
END;
