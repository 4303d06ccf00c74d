-- What GitHub reports about a preview's pull request and repository, as the API's JSON. Null until it is known.
ALTER TABLE previews ADD COLUMN details TEXT;
