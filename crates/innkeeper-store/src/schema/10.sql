-- The running time when a preview was last used, or expired.
ALTER TABLE previews ADD COLUMN active_running INTEGER NOT NULL DEFAULT 0;
UPDATE previews SET active_running = (SELECT micros FROM running_time);
-- The running time when an evaluation was last used.
ALTER TABLE evaluations ADD COLUMN used_running INTEGER NOT NULL DEFAULT 0;
UPDATE evaluations SET used_running = (SELECT micros FROM running_time);
-- The running time when a delivery was finished; nothing while it is pending.
ALTER TABLE deliveries ADD COLUMN finished_running INTEGER;
UPDATE deliveries SET finished_running = (SELECT micros FROM running_time) WHERE finished_at IS NOT NULL;
