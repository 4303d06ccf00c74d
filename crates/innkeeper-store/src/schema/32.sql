-- GitHub's number of the only repository whose previews a token may use: the token follows its renames. NULL until the repository
-- is known, and for tokens of the whole host.
ALTER TABLE tokens ADD COLUMN repo_id INTEGER;
DROP TRIGGER tokens_do_not_change;
UPDATE tokens SET repo_id = (SELECT id FROM repositories WHERE name = tokens.repo);
CREATE TRIGGER tokens_do_not_change BEFORE UPDATE ON tokens
WHEN OLD.revoked_at IS NOT NULL
    OR (NEW.id, NEW.name, NEW.digest, NEW.role) IS NOT (OLD.id, OLD.name, OLD.digest, OLD.role)
    OR NEW.expires_at IS NOT OLD.expires_at
    OR (OLD.repo_id IS NOT NULL AND NEW.repo_id IS NOT OLD.repo_id)
    OR (OLD.repo_id IS NULL AND NEW.repo IS NOT OLD.repo)
    OR (OLD.repo IS NULL) <> (NEW.repo IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'a token only gets its last use, its revocation and the name of its repository');
END;

-- The object of a request may get a part that the request's path does not name, such as the name of a copy.
DROP TRIGGER audit_does_not_change;
CREATE TRIGGER audit_does_not_change BEFORE UPDATE ON audit
WHEN OLD.result IS NOT NULL
    OR (NEW.seq, NEW.time, NEW.began_running, NEW.actor, NEW.verb)
        IS NOT (OLD.seq, OLD.time, OLD.began_running, OLD.actor, OLD.verb)
    OR NEW.source IS NOT OLD.source
    OR (OLD.object IS NOT NULL AND substr(NEW.object, 1, length(OLD.object)) IS NOT OLD.object)
BEGIN
    SELECT RAISE(ABORT, 'an audit entry only gets its result');
END;

-- The actor that created a preview by command. NULL for those of pull requests, and for previews from before.
ALTER TABLE previews ADD COLUMN owner TEXT;
