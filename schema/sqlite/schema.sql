-- The schema as all migrations together make it; a test holds it to that. Times are microseconds since 1970-01-01 UTC;
-- ids are UUIDv7 in text.

-- What the database is: schema (the number of its last migration), shards, probe.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Who may write: an append carries the epoch under which its writer owns the shard.
CREATE TABLE shard (
    id INTEGER NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    node TEXT NOT NULL
) STRICT;

-- One row a run, in the order in which the runs were accepted; written when its status changes, never per step.
-- parked: it waits, nothing is under way for it, and nobody needs to have it in memory before wake_at.
CREATE TABLE run (
    number INTEGER NOT NULL PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    code_hash TEXT NOT NULL,
    shard INTEGER NOT NULL,
    status TEXT NOT NULL,
    paused INTEGER NOT NULL,
    parked INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    wake_at INTEGER,
    options TEXT NOT NULL,
    attributes TEXT NOT NULL,
    input TEXT NOT NULL,
    output TEXT,
    error TEXT,
    open INTEGER NOT NULL AS (
        status NOT IN ('COMPLETED', 'FAILED', 'COMPENSATED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT', 'CONTINUED')
    ) VIRTUAL,
    parent TEXT AS (options ->> 'parent') VIRTUAL,
    lock_key TEXT AS (options ->> 'lock_key') VIRTUAL,
    correlation_id TEXT AS (options ->> 'correlation_id') VIRTUAL
) STRICT;

CREATE UNIQUE INDEX run_open ON run (workflow, workflow_id) WHERE open;
CREATE INDEX run_recovery ON run (run_id) WHERE open AND NOT parked;
CREATE INDEX run_wake ON run (wake_at, run_id) WHERE parked AND wake_at IS NOT NULL;

-- For lists: each stretch of one status is in the order of its time, then of the row's number, so that a page of any
-- list is read off one stretch, or merged from a few, without sorting.
CREATE INDEX run_status ON run (status, created_at);
CREATE INDEX run_workflow_status ON run (workflow, status, created_at);
CREATE INDEX run_workflow_id ON run (workflow_id, created_at);
CREATE INDEX run_parent ON run (parent, status, created_at) WHERE parent IS NOT NULL;
CREATE INDEX run_correlation ON run (correlation_id, status, created_at) WHERE correlation_id IS NOT NULL;
CREATE INDEX run_ended ON run (status, ended_at, number, created_at) WHERE ended_at IS NOT NULL;
CREATE INDEX run_workflow_ended ON run (workflow, status, ended_at, number, created_at) WHERE ended_at IS NOT NULL;
CREATE INDEX run_paused ON run (created_at) WHERE paused;

-- How many runs there are; kept by triggers, because counting a million takes long.
CREATE TABLE run_count (
    status TEXT NOT NULL,
    workflow TEXT NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (status, workflow)
) STRICT, WITHOUT ROWID;

-- How many runs have ended in each hour since 1970, by their status, and as STARTED how many were started in it.
CREATE TABLE run_hour (
    hour INTEGER NOT NULL,
    workflow TEXT NOT NULL,
    status TEXT NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (hour, workflow, status)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER run_counts_insert AFTER INSERT ON run
BEGIN
    INSERT INTO run_count (status, workflow, runs) VALUES (new.status, new.workflow, 1)
    ON CONFLICT (status, workflow) DO UPDATE SET runs = runs + 1;
    INSERT INTO run_hour (hour, workflow, status, runs) VALUES (new.created_at / 3600000000, new.workflow, 'STARTED', 1)
    ON CONFLICT (hour, workflow, status) DO UPDATE SET runs = runs + 1;
    INSERT INTO run_hour (hour, workflow, status, runs)
    SELECT new.ended_at / 3600000000, new.workflow, new.status, 1 WHERE new.ended_at IS NOT NULL
    ON CONFLICT (hour, workflow, status) DO UPDATE SET runs = runs + 1;
END;

CREATE TRIGGER run_counts_update AFTER UPDATE OF status ON run WHEN new.status <> old.status
BEGIN
    UPDATE run_count SET runs = runs - 1 WHERE status = old.status AND workflow = old.workflow;
    INSERT INTO run_count (status, workflow, runs) VALUES (new.status, new.workflow, 1)
    ON CONFLICT (status, workflow) DO UPDATE SET runs = runs + 1;
END;

CREATE TRIGGER run_hours_update AFTER UPDATE OF ended_at ON run WHEN new.ended_at IS NOT old.ended_at
BEGIN
    UPDATE run_hour SET runs = runs - 1
    WHERE hour = old.ended_at / 3600000000 AND workflow = old.workflow AND status = old.status;
    INSERT INTO run_hour (hour, workflow, status, runs)
    SELECT new.ended_at / 3600000000, new.workflow, new.status, 1 WHERE new.ended_at IS NOT NULL
    ON CONFLICT (hour, workflow, status) DO UPDATE SET runs = runs + 1;
END;

CREATE TRIGGER run_counts_delete AFTER DELETE ON run
BEGIN
    UPDATE run_count SET runs = runs - 1 WHERE status = old.status AND workflow = old.workflow;
    UPDATE run_hour SET runs = runs - 1
    WHERE hour = old.created_at / 3600000000 AND workflow = old.workflow AND status = 'STARTED';
    UPDATE run_hour SET runs = runs - 1
    WHERE hour = old.ended_at / 3600000000 AND workflow = old.workflow AND status = old.status;
END;

-- The attributes of runs, to find runs by: each name and value has its runs in the order of lists.
-- run_workflow: so that those of other workflows are passed over without a look at their runs; empty: look there.
CREATE TABLE attribute (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run_created_at INTEGER NOT NULL,
    run_number INTEGER NOT NULL,
    run_workflow TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (name, value, run_created_at, run_number)
) STRICT, WITHOUT ROWID;
CREATE INDEX attribute_run ON attribute (run_number);

-- The journal. Never updated. A payload over 64 KiB lies in the table payload, under payload_hash.
CREATE TABLE event (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    "by" TEXT NOT NULL,
    at INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    payload_hash TEXT,
    payload BLOB,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

-- How far the long steps under way have said that they are: written every few seconds at most, gone when they settle.
CREATE TABLE progress (
    run_id TEXT NOT NULL,
    path TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    details TEXT NOT NULL,
    done REAL,
    total REAL,
    PRIMARY KEY (run_id, path)
) STRICT, WITHOUT ROWID;

-- Large payloads, by the hash of their content; uses counts the events that name it.
CREATE TABLE payload (
    hash TEXT NOT NULL PRIMARY KEY,
    uses INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- Messages, in the order in which they came. A row stays after it was read (without its payload), so that a repeated
-- message is recognised. state: UNREAD, READ, or LEFT (its run ended first).
CREATE TABLE inbox (
    number INTEGER NOT NULL PRIMARY KEY,
    workflow TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    payload BLOB,
    at INTEGER NOT NULL,
    "by" TEXT NOT NULL,
    state TEXT NOT NULL,
    UNIQUE (workflow, workflow_id, message_id)
) STRICT;
CREATE INDEX inbox_run ON inbox (run_id);
CREATE INDEX inbox_unread ON inbox (run_id) WHERE state = 'UNREAD';

-- Which start an idempotency key belongs to; outlives the run.
CREATE TABLE idempotency_key (
    workflow TEXT NOT NULL,
    key TEXT NOT NULL,
    input_hash TEXT NOT NULL,
    run_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (workflow, key)
) STRICT, WITHOUT ROWID;

-- A lock key's counters: the last ticket drawn, and the fence number of the present holder. Neither ever goes down.
CREATE TABLE lock (
    key TEXT NOT NULL PRIMARY KEY,
    last_ticket INTEGER NOT NULL,
    fence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who holds (the lowest ticket of a key) and who waits. path: of the lock in the run's code, or '' for the run's own.
-- granted: it is recorded that this ticket has the lock.
CREATE TABLE lock_ticket (
    key TEXT NOT NULL,
    ticket INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    path TEXT NOT NULL,
    since INTEGER NOT NULL,
    granted INTEGER NOT NULL,
    PRIMARY KEY (key, ticket),
    UNIQUE (run_id, path)
) STRICT, WITHOUT ROWID;

-- Events that runs have published, in the order in which they were recorded; each is here once. A number is never used
-- again, so that a reader can go on where it stopped.
CREATE TABLE outbox (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    path TEXT NOT NULL,
    workflow TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload TEXT NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (run_id, path)
) STRICT;
CREATE INDEX outbox_at ON outbox (at);

-- What was appended together: a row for each batch of events, for those who follow them all. keys: 20 bytes for each
-- event, the run's id and the seq. A row in which nothing is any more says that it was removed, and all before it.
CREATE TABLE feed (
    number INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    events INTEGER NOT NULL,
    keys BLOB NOT NULL
) STRICT;

-- What a person has to decide or mend.
CREATE TABLE incident (
    number INTEGER NOT NULL PRIMARY KEY,
    incident_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    at INTEGER NOT NULL,
    run_id TEXT,
    workflow TEXT,
    path TEXT NOT NULL,
    details TEXT NOT NULL,
    state TEXT NOT NULL,
    resolution TEXT,
    resolved_by TEXT,
    resolved_why TEXT,
    resolved_at INTEGER,
    history TEXT NOT NULL,
    acknowledged INTEGER NOT NULL,
    fingerprint TEXT NOT NULL
) STRICT;
CREATE INDEX incident_state ON incident (state);
CREATE INDEX incident_group ON incident (fingerprint, state);
CREATE INDEX incident_time ON incident (state, at, workflow) WHERE workflow IS NOT NULL;
CREATE INDEX incident_run ON incident (run_id) WHERE run_id IS NOT NULL;

-- What was asked for from outside the daemon and is not done yet: in PostgreSQL by functions in SQL. Here nobody asks in
-- this way; what is copied from there is carried out.
CREATE TABLE request (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    run_id TEXT,
    at INTEGER NOT NULL,
    shard INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    state TEXT NOT NULL,
    kind TEXT NOT NULL,
    workflow TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT,
    why TEXT,
    "by" TEXT NOT NULL,
    payload TEXT NOT NULL,
    options TEXT NOT NULL
) STRICT;
CREATE INDEX request_new ON request (number) WHERE state = 'NEW';

-- Plugin sources, so that open runs go on with the code that they began with. files: JSON, path to text.
CREATE TABLE plugin_code (
    code_hash TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    files TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

-- Which migrations of a plugin's own tables have been applied. hash: of the migration's text, which may not change.
CREATE TABLE plugin_migration (
    plugin TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (plugin, number)
) STRICT, WITHOUT ROWID;

-- For people: runs with readable times.
CREATE VIEW runs AS
SELECT
    run_id, workflow, workflow_id, status, paused, input, output, error,
    strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000000, 'unixepoch') || printf('.%06dZ', created_at % 1000000)
        AS created_at,
    strftime('%Y-%m-%dT%H:%M:%S', ended_at / 1000000, 'unixepoch') || printf('.%06dZ', ended_at % 1000000) AS ended_at,
    strftime('%Y-%m-%dT%H:%M:%S', wake_at / 1000000, 'unixepoch') || printf('.%06dZ', wake_at % 1000000) AS wake_at,
    parent, lock_key, correlation_id, attributes, code_hash, shard, options
FROM run;

-- For people: what happened, with the payload as JSON.
CREATE VIEW timeline AS
SELECT
    event.run_id, run.workflow, run.workflow_id, run.status, event.seq,
    strftime('%Y-%m-%dT%H:%M:%S', event.at / 1000000, 'unixepoch') || printf('.%06dZ', event.at % 1000000) AS at,
    event.kind, event.path, event.attempt, event."by",
    CAST(coalesce(event.payload, payload.body) AS TEXT) AS payload
FROM event
LEFT JOIN run ON run.run_id = event.run_id
LEFT JOIN payload ON payload.hash = event.payload_hash;
