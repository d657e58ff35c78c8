-- The tables of an outside world: each call that a step has made, and what took effect, once for each key.
CREATE TABLE IF NOT EXISTS call (run_id TEXT, path TEXT, attempt INTEGER, key TEXT, at INTEGER);
CREATE TABLE IF NOT EXISTS effect (key TEXT PRIMARY KEY, run_id TEXT, path TEXT);
