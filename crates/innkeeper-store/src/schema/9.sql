-- Who this daemon is: one row, made with the database, so that it moves with the state directory.
CREATE TABLE identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- Marks what the daemon makes on the host.
    daemon TEXT NOT NULL,
    -- Whether what releases without identities made for the records of this database was marked.
    adopted INTEGER NOT NULL CHECK (adopted IN (0, 1))
) STRICT;

-- `numbering` is filled when a new database is first opened: only an older one has a row here.
INSERT INTO identity (only_row, daemon, adopted)
VALUES (1, lower(hex(randomblob(16))), NOT EXISTS (SELECT 1 FROM numbering));
