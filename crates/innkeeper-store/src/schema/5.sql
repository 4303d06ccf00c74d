-- What is to be done with a guest's files first: a copy, a snapshot, a return to one.
ALTER TABLE guests ADD COLUMN file_work TEXT;

-- Guests' files as they were once. What is still to be taken, or is to be deleted, is not among them.
CREATE TABLE snapshots (
    guest TEXT NOT NULL REFERENCES guests (name) ON DELETE CASCADE,
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (guest, label)
) STRICT, WITHOUT ROWID;
