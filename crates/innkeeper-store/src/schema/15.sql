-- Whether a commit with a preview-config.nix was found. Before that, nothing is reported on the pull request. Former
-- releases reported on every preview.
ALTER TABLE previews ADD COLUMN config_seen INTEGER NOT NULL DEFAULT 0 CHECK (config_seen IN (0, 1));
UPDATE previews SET config_seen = 1;
-- The running time since which the preview's file or branch is gone; NULL while both exist.
ALTER TABLE previews ADD COLUMN removal_running INTEGER;
