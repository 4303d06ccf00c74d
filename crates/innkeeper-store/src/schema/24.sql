-- The reason why a sleeping guest did not wake, until the next attempt.
ALTER TABLE guests ADD COLUMN wake_failure TEXT;
-- The failure of a running operation that is being rolled back: a rollback that a crash interrupted is repeated.
ALTER TABLE operations ADD COLUMN rollback TEXT;
