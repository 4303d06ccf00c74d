-- Additional previews of a pull request, each of another configuration of the repository. Their `number` is NULL: the pull
-- request's deliveries belong to the preview of the first configuration.
ALTER TABLE previews ADD COLUMN config_path TEXT;
ALTER TABLE previews ADD COLUMN additional_to INTEGER;
CREATE INDEX additional_previews ON previews (repo, additional_to) WHERE additional_to IS NOT NULL;
