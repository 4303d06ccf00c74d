-- Whether the commit in `approved_sha` was approved by a label: without the label, it is not approved any more.
ALTER TABLE previews ADD COLUMN approved_by_label INTEGER NOT NULL DEFAULT 0 CHECK (approved_by_label IN (0, 1));
