-- Which migrations of a plugin's own tables have been applied. hash: of the migration's text, which may not change.
CREATE TABLE plugin_migration (
    plugin TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (plugin, number)
) STRICT, WITHOUT ROWID;
