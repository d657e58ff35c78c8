"""SQLite as a source and as a target of migrations."""
