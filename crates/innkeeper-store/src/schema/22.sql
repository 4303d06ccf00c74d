-- The level of a guest that should run: awake, paused or asleep. Guests from before are awake.
ALTER TABLE guests ADD COLUMN level TEXT NOT NULL DEFAULT 'awake';
