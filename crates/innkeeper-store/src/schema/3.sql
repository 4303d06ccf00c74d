-- Whether another version than the live one may be in the guest: its setup was begun, and neither it nor the live one
-- has come up since.
ALTER TABLE previews ADD COLUMN disturbed INTEGER NOT NULL DEFAULT 0 CHECK (disturbed IN (0, 1));
