-- GitHub's number of the comment with a command. Several webhooks may deliver the same comment: its command is executed once.
ALTER TABLE deliveries ADD COLUMN comment INTEGER;
CREATE UNIQUE INDEX commands ON deliveries (comment) WHERE comment IS NOT NULL;
-- The explicit request for a preview: 'label', 'command', or nothing.
ALTER TABLE previews ADD COLUMN request TEXT;
-- Whether the database is to be dropped and created again before the app is set up.
ALTER TABLE previews ADD COLUMN reset_database INTEGER NOT NULL DEFAULT 0 CHECK (reset_database IN (0, 1));
