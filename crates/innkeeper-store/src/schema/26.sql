-- The use of a guest's idle time: sleep, pause or always_on. NULL is that of its kind in the configuration.
ALTER TABLE guests ADD COLUMN idle_policy TEXT;

-- Agents from before have never rested by themselves, and may depend on that.
UPDATE guests SET idle_policy = 'always_on' WHERE kind = 'agent';

-- The running time at which a keepalive ends.
ALTER TABLE guests ADD COLUMN awake_until_running INTEGER;
