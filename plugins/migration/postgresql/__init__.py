"""PostgreSQL as the source and as the target of a migration: one schema of a database."""
