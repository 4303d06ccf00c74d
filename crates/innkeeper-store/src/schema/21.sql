-- A change of an agent's closure or limits that has not ended: what comes next, and what the guest has or had otherwise.
ALTER TABLE guests ADD COLUMN closure_change TEXT;

-- How the last one ended.
ALTER TABLE guests ADD COLUMN last_change TEXT;

-- Whether the host's configuration declares the agent. Only such agents may be removed with their declaration.
ALTER TABLE guests ADD COLUMN declared INTEGER NOT NULL DEFAULT 0 CHECK (declared IN (0, 1));
