-- The system that a guest has built for itself, as its Nix profile names it, and whether it came up with it.
ALTER TABLE guests ADD COLUMN own_system TEXT;
