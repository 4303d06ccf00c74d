-- The closure that a warm seat has booted. NULL for a seat at its door.
ALTER TABLE seats ADD COLUMN closure TEXT;
