-- The commit of a fork that the pull request was shown as waiting for approval, and the last delivery that had arrived
-- before that: a label approves this commit only, and only if its delivery came later.
ALTER TABLE previews ADD COLUMN announced_sha TEXT;
ALTER TABLE previews ADD COLUMN announced_after INTEGER NOT NULL DEFAULT 0;
