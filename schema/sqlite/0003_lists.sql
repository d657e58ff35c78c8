-- The attribute of a run says which workflow it is of, so that those of others are passed over without a look at their
-- runs. Empty: of a run that had it before this was written.
ALTER TABLE attribute ADD COLUMN run_workflow TEXT NOT NULL DEFAULT '';
