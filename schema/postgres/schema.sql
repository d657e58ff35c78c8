-- The schema as all migrations together make it; a test holds it to that.
-- The journal and what belongs to it, in a schema of its own (this name stands for the one that is configured).
-- Times are microseconds since 1970-01-01 UTC; run ids are UUIDv7. Text is compared byte by byte.
-- Values that users made are JSON as bytes: they are written often and read as JSON seldom; see the views.

-- What the database is: id (made with it), schema (the number of its last migration), shards, probe.
CREATE TABLE jivsd.meta (
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- Who may write: an append carries the epoch under which its writer owns the shard. claim: the opening of the database
-- by a node, so that it knows what it has done itself. since: when it was claimed.
CREATE TABLE jivsd.shard (
    id integer PRIMARY KEY,
    epoch bigint NOT NULL,
    since bigint NOT NULL,
    node text NOT NULL,
    claim uuid
);

-- The nodes that have the database: a row each, renewed as long as it lives, and never locked by a batch. instance: as
-- claim in shard. until: when it is over, by the clock of the database. by: what its shards are held by (redis,
-- postgresql; alone: it does not share; or nothing yet). leaving: it hands over what it has. full: it takes no starts.
CREATE TABLE jivsd.lease (
    node text COLLATE "C" PRIMARY KEY,
    instance uuid NOT NULL,
    joined_at bigint NOT NULL,
    until bigint NOT NULL,
    leaving boolean NOT NULL,
    "full" boolean NOT NULL,
    "by" text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL
);

-- One row a run, in the order in which the runs were accepted; written when its status changes, never per step.
-- parked: it waits, nothing is under way for it, and nobody needs to have it in memory before wake_at.
CREATE TABLE jivsd.run (
    run_id uuid PRIMARY KEY,
    parent uuid,
    chain uuid,
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    created_at bigint NOT NULL,
    started_at bigint,
    ended_at bigint,
    wake_at bigint,
    shard integer NOT NULL,
    paused boolean NOT NULL,
    parked boolean NOT NULL,
    open boolean NOT NULL GENERATED ALWAYS AS (
        status NOT IN ('COMPLETED', 'FAILED', 'COMPENSATED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT', 'CONTINUED')
    ) STORED,
    status text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    code_hash text COLLATE "C" NOT NULL,
    lock_key text COLLATE "C",
    correlation_id text COLLATE "C",
    options bytea NOT NULL,
    attributes bytea NOT NULL,
    input bytea NOT NULL,
    output bytea,
    error bytea
);

CREATE UNIQUE INDEX run_open ON jivsd.run (workflow, workflow_id) WHERE open;
CREATE INDEX run_recovery ON jivsd.run (run_id) WHERE open AND NOT parked;
CREATE INDEX run_wake ON jivsd.run (wake_at, run_id) WHERE parked AND wake_at IS NOT NULL;

-- For lists: each stretch of one status is in the order of its time, then of the row's number, so that a page of any
-- list is read off one stretch, or merged from a few, without sorting.
CREATE INDEX run_status ON jivsd.run (status, created_at, number);
CREATE INDEX run_workflow_status ON jivsd.run (workflow, status, created_at, number);
CREATE INDEX run_workflow_id ON jivsd.run (workflow_id, created_at, number);
CREATE INDEX run_parent ON jivsd.run (parent, status, created_at, number) WHERE parent IS NOT NULL;
CREATE INDEX run_correlation ON jivsd.run (correlation_id, status, created_at, number)
    WHERE correlation_id IS NOT NULL;
CREATE INDEX run_ended ON jivsd.run (status, ended_at, number, created_at) WHERE ended_at IS NOT NULL;
CREATE INDEX run_workflow_ended ON jivsd.run (workflow, status, ended_at, number, created_at)
    WHERE ended_at IS NOT NULL;
CREATE INDEX run_paused ON jivsd.run (created_at, number) WHERE paused;

-- How many runs there are, because counting a million takes long: the sum of what each statement has changed. Rows are
-- only added, so that no two writers wait for each other; now and then they are added up (see fold_counts).
-- hour: since 1970, in which those of an end status ended. The status STARTED: so many were started in that hour,
-- whatever has become of them.
CREATE TABLE jivsd.run_count (
    status text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    hour integer,
    runs bigint NOT NULL
);

-- What was added up, by hour. A workflow and status may have several rows of an hour, which are added up with the next.
CREATE TABLE jivsd.run_hour (
    hour integer NOT NULL,
    status text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    runs bigint NOT NULL
);
CREATE INDEX run_hour_hour ON jivsd.run_hour (hour);

CREATE FUNCTION jivsd.count_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO jivsd.run_count
        SELECT status, workflow, ended_at / 3600000000, count(*) FROM added GROUP BY 1, 2, 3
        UNION ALL SELECT 'STARTED', workflow, created_at / 3600000000, count(*) FROM added GROUP BY 2, 3;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO jivsd.run_count
        SELECT status, workflow, ended_at / 3600000000, -count(*) FROM removed GROUP BY 1, 2, 3
        UNION ALL SELECT 'STARTED', workflow, created_at / 3600000000, -count(*) FROM removed GROUP BY 2, 3;
    ELSE
        INSERT INTO jivsd.run_count
        SELECT status, workflow, ended_at / 3600000000, sum(runs)
        FROM (
            SELECT status, workflow, ended_at, 1 AS runs FROM added
            UNION ALL SELECT status, workflow, ended_at, -1 FROM removed
        ) AS one
        GROUP BY 1, 2, 3 HAVING sum(runs) <> 0;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER run_counts_insert AFTER INSERT ON jivsd.run REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION jivsd.count_runs();
CREATE TRIGGER run_counts_update AFTER UPDATE ON jivsd.run REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION jivsd.count_runs();
CREATE TRIGGER run_counts_delete AFTER DELETE ON jivsd.run REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION jivsd.count_runs();

-- The attributes of runs, to find runs by: each name and value has its runs in the order of lists.
-- run_workflow: so that those of other workflows are passed over without a look at their runs; empty: look there.
CREATE TABLE jivsd.attribute (
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    run_created_at bigint NOT NULL,
    run_number bigint NOT NULL,
    run_id uuid NOT NULL,
    run_workflow text COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (name, value, run_created_at, run_number)
);
CREATE INDEX attribute_run ON jivsd.attribute (run_id);

-- The journal. Never updated. A payload over 64 KiB lies in the table payload, under payload_hash.
CREATE TABLE jivsd.event (
    run_id uuid NOT NULL,
    at bigint NOT NULL,
    checksum bigint NOT NULL,
    seq integer NOT NULL,
    attempt integer NOT NULL,
    kind text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    "by" text COLLATE "C" NOT NULL,
    payload bytea,
    payload_hash text COLLATE "C",
    PRIMARY KEY (run_id, seq)
);

-- How far the long steps under way have said that they are: written every few seconds at most, gone when they settle.
CREATE TABLE jivsd.progress (
    run_id uuid NOT NULL,
    at bigint NOT NULL,
    done double precision,
    total double precision,
    attempt integer NOT NULL,
    path text COLLATE "C" NOT NULL,
    details bytea NOT NULL,
    PRIMARY KEY (run_id, path)
);

-- Large payloads, by the hash of their content; uses counts the events that name it.
CREATE TABLE jivsd.payload (
    hash text COLLATE "C" PRIMARY KEY,
    uses bigint NOT NULL,
    body bytea NOT NULL
);

-- Messages, in the order in which they came. A row stays after it was read (without its payload), so that a repeated
-- message is recognised. state: UNREAD, READ, or LEFT (its run ended first).
CREATE TABLE jivsd.inbox (
    number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id uuid NOT NULL,
    at bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    "by" text COLLATE "C" NOT NULL,
    payload bytea,
    UNIQUE (workflow, workflow_id, message_id)
);
CREATE INDEX inbox_run ON jivsd.inbox (run_id);
CREATE INDEX inbox_unread ON jivsd.inbox (run_id) WHERE state = 'UNREAD';

-- Which start an idempotency key belongs to; outlives the run.
CREATE TABLE jivsd.idempotency_key (
    workflow text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    input_hash text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (workflow, key)
);

-- A lock key's counters: the last ticket drawn, and the fence number of the present holder. Neither ever goes down.
CREATE TABLE jivsd.lock (
    key text COLLATE "C" PRIMARY KEY,
    last_ticket bigint NOT NULL,
    fence bigint NOT NULL
);

-- Who holds (the lowest ticket of a key) and who waits. path: of the lock in the run's code, or '' for the run's own.
-- granted: it is recorded that this ticket has the lock.
CREATE TABLE jivsd.lock_ticket (
    key text COLLATE "C" NOT NULL,
    ticket bigint NOT NULL,
    run_id uuid NOT NULL,
    since bigint NOT NULL,
    granted boolean NOT NULL,
    path text COLLATE "C" NOT NULL,
    PRIMARY KEY (key, ticket),
    UNIQUE (run_id, path)
);

-- Who holds each lock key, read off the ends of the queues, however long they are.
CREATE VIEW jivsd.lock_head AS
WITH RECURSIVE head AS (
    (SELECT key, ticket, run_id, since, path, granted FROM jivsd.lock_ticket ORDER BY key, ticket LIMIT 1)
    UNION ALL
    SELECT following.* FROM head CROSS JOIN LATERAL (
        SELECT key, ticket, run_id, since, path, granted FROM jivsd.lock_ticket
        WHERE lock_ticket.key > head.key ORDER BY key, ticket LIMIT 1
    ) AS following
)
SELECT key, ticket, run_id, since, path, granted FROM head;

-- Events that runs have published, in the order in which they were recorded; each is here once.
CREATE TABLE jivsd.outbox (
    number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id uuid NOT NULL,
    at bigint NOT NULL,
    path text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    UNIQUE (run_id, path)
);
CREATE INDEX outbox_at ON jivsd.outbox (at);

-- What was appended together: a row for each transaction that appends events, for those who follow them all. stream: the
-- server process that wrote it; of one process a number is committed only after all lower ones were. A row in which
-- nothing is any more says that it was removed, and all before it.
CREATE TABLE jivsd.feed (
    number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at bigint NOT NULL,
    stream integer NOT NULL,
    events integer NOT NULL,
    runs uuid[] NOT NULL,
    seqs integer[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, toast_tuple_target = 8160);
-- Ids cannot be made smaller, and a batch of usual size stays in its row.
ALTER TABLE jivsd.feed ALTER COLUMN runs SET STORAGE EXTERNAL, ALTER COLUMN seqs SET STORAGE EXTERNAL;

-- How the feed stands: which transactions are under way, the last number, and up to where it was removed.
CREATE VIEW jivsd.feed_state AS
SELECT
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at,
    coalesce((SELECT max(number) FROM jivsd.feed), 0) AS newest,
    coalesce(first.number, 0) AS removed,
    coalesce(first.at, 0) AS removed_at,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS following
FROM (SELECT) AS one
LEFT JOIN (SELECT number, at, events FROM jivsd.feed ORDER BY number LIMIT 1) AS first ON first.events = 0;

-- What a node was asked that only the owner of a shard can do, and the answer; for as long as somebody waits for it.
CREATE TABLE jivsd.forwarded (
    number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at bigint NOT NULL,
    shard integer NOT NULL,
    taken boolean NOT NULL,
    body bytea NOT NULL,
    answer bytea
);

-- What a person has to decide or mend.
CREATE TABLE jivsd.incident (
    number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    incident_id text COLLATE "C" NOT NULL UNIQUE,
    kind text COLLATE "C" NOT NULL,
    message text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    run_id text COLLATE "C",
    workflow text COLLATE "C",
    path text COLLATE "C" NOT NULL,
    details bytea NOT NULL,
    state text COLLATE "C" NOT NULL,
    resolution text COLLATE "C",
    resolved_by text COLLATE "C",
    resolved_why text COLLATE "C",
    resolved_at bigint,
    history bytea NOT NULL,
    acknowledged boolean NOT NULL,
    fingerprint text COLLATE "C" NOT NULL
);
CREATE INDEX incident_state ON jivsd.incident (state, number);
CREATE INDEX incident_group ON jivsd.incident (fingerprint, state, number);
CREATE INDEX incident_time ON jivsd.incident (state, at, workflow) WHERE workflow IS NOT NULL;
CREATE INDEX incident_run ON jivsd.incident (run_id, number) WHERE run_id IS NOT NULL;

-- What was asked for in SQL (see the functions start, signal and cancel), in the order of number, which is that of the
-- calls in one session. id: of the run that a start is to make. state: NEW; REFUSED, while an incident says why not;
-- CLOSED, when somebody has seen that; EXISTING: run_id was started before under the same idempotency key. What was
-- carried out is gone. tries: how often it was refused. key: an idempotency key or message id.
CREATE TABLE jivsd.request (
    id uuid PRIMARY KEY,
    run_id uuid,
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    at bigint NOT NULL,
    shard integer NOT NULL,
    tries integer NOT NULL,
    state text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    why text COLLATE "C",
    "by" text COLLATE "C" NOT NULL,
    payload bytea NOT NULL,
    options bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
CREATE INDEX request_new ON jivsd.request (number) WHERE state = 'NEW';

-- Plugin sources, so that open runs go on with the code that they began with. files: JSON, path to text.
CREATE TABLE jivsd.plugin_code (
    code_hash text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    files bytea NOT NULL,
    at bigint NOT NULL
);

-- Which migrations of a plugin's own tables have been applied. hash: of the migration's text, which may not change.
-- tables: those that it has made, wherever they are.
CREATE TABLE jivsd.plugin_migration (
    plugin text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    hash text COLLATE "C" NOT NULL,
    tables text[] NOT NULL,
    PRIMARY KEY (plugin, number)
);

-- Appends events in one round trip. Every parameter is a list; those of one paragraph belong together, entry by entry.
-- The fence comes last, so that it is held for an instant: a shard whose epoch is no longer the given one undoes all
-- (JV002).
-- Planned once for any number of rows; a plan made while tables were empty would read them from end to end for ever.
CREATE FUNCTION jivsd.append_events(
    shards integer[], epochs bigint[],

    event_runs uuid[], event_times bigint[], event_checksums bigint[], event_seqs integer[], event_attempts integer[],
    event_kinds text[], event_paths text[], event_by text[], event_payloads bytea[], event_hashes text[]
) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET lock_timeout = '250ms'
AS $$
DECLARE
    found_rows bigint;
BEGIN
    INSERT INTO jivsd.event (run_id, at, checksum, seq, attempt, kind, path, "by", payload, payload_hash)
    SELECT * FROM unnest(event_runs, event_times, event_checksums, event_seqs, event_attempts, event_kinds,
                         event_paths, event_by, event_payloads, event_hashes);
    IF cardinality(event_runs) > 0 THEN
        -- after the events: the number is drawn when the transaction has its id, as `jivsd.store.feed` needs it
        INSERT INTO jivsd.feed (at, stream, events, runs, seqs)
        VALUES (event_times[1], pg_backend_pid(), cardinality(event_runs), event_runs, event_seqs);
    END IF;
    SELECT count(*) INTO found_rows FROM (
        SELECT id, epoch FROM jivsd.shard WHERE id = ANY (shards) ORDER BY id FOR SHARE
    ) AS present
    JOIN unnest(shards, epochs) AS known (id, epoch) USING (id, epoch);
    IF found_rows < cardinality(shards) THEN
        RAISE EXCEPTION 'a shard has another owner' USING ERRCODE = 'JV002';
    END IF;
END
$$;

-- Puts messages from outside into the inbox, each for a run that has to be open and must not end before this transaction
-- does. One that cannot be put, because it was seen before, its run has ended or somebody holds its row, undoes all
-- (JV001).
CREATE FUNCTION jivsd.put_messages(
    run_ids uuid[], times bigint[], workflows text[], workflow_ids text[], message_ids text[], kinds text[],
    paths text[], senders text[], payloads bytea[]
) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET lock_timeout = '250ms'
AS $$
DECLARE
    found_rows bigint;
BEGIN
    WITH receiver AS (
        SELECT run_id, workflow, workflow_id FROM jivsd.run
        WHERE run_id = ANY (run_ids) AND open ORDER BY run_id FOR KEY SHARE SKIP LOCKED
    )
    INSERT INTO jivsd.inbox (run_id, at, workflow, workflow_id, message_id, kind, path, "by", payload, state)
    SELECT receiver.run_id, at, receiver.workflow, receiver.workflow_id, message_id, kind, path, sender, payload, 'UNREAD'
    FROM unnest(run_ids, times, workflows, workflow_ids, message_ids, kinds, paths, senders, payloads) WITH ORDINALITY
        AS new (run_id, at, workflow, workflow_id, message_id, kind, path, sender, payload, place)
    JOIN receiver ON receiver.run_id = new.run_id AND receiver.workflow = new.workflow
        AND receiver.workflow_id = new.workflow_id
    ORDER BY place
    ON CONFLICT (workflow, workflow_id, message_id) DO NOTHING;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows < cardinality(run_ids) THEN
        RAISE EXCEPTION 'a message cannot be put' USING ERRCODE = 'JV001';
    END IF;
END
$$;

-- Writes a batch in one round trip: changes of runs, new runs with their keys, attributes, messages that were read, runs
-- that ended, events. Parameters are lists as before. A run is in each list of runs once at most. Changes come first: a
-- workflow id whose run ends here may start again here.
-- A run row that is missing or that somebody else holds undoes all (JV001): nothing here waits for it.
CREATE FUNCTION jivsd.write_batch(
    shards integer[], epochs bigint[],

    new_ids uuid[], new_parents uuid[], new_chains uuid[], new_created bigint[], new_started bigint[],
    new_ended bigint[], new_wakes bigint[], new_shards integer[], new_paused boolean[], new_parked boolean[],
    new_statuses text[], new_workflows text[], new_workflow_ids text[], new_codes text[], new_locks text[],
    new_correlations text[], new_options bytea[], new_attributes bytea[], new_inputs bytea[], new_outputs bytea[],
    new_errors bytea[],

    key_workflows text[], key_names text[], key_hashes text[], key_runs uuid[], key_times bigint[],

    changed_ids uuid[], changed_statuses text[], changed_paused boolean[], changed_outputs bytea[],
    changed_errors bytea[], changed_codes text[], changed_started bigint[], changed_ended bigint[],
    changed_wakes bigint[], changed_attributes bytea[], changed_parked boolean[],

    attributed_ids uuid[], attribute_runs uuid[], attribute_names text[], attribute_values text[],

    read_runs uuid[], read_messages text[],

    ended_ids uuid[],

    event_runs uuid[], event_times bigint[], event_checksums bigint[], event_seqs integer[], event_attempts integer[],
    event_kinds text[], event_paths text[], event_by text[], event_payloads bytea[], event_hashes text[]
) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET lock_timeout = '250ms'
AS $$
DECLARE
    found_rows bigint;
BEGIN
    IF cardinality(changed_ids) > 0 THEN
        SELECT count(*) INTO found_rows FROM (
            SELECT FROM jivsd.run WHERE run_id = ANY (changed_ids) ORDER BY run_id FOR UPDATE SKIP LOCKED
        ) AS held;
        IF found_rows < cardinality(changed_ids) THEN
            RAISE EXCEPTION 'a run to be changed is missing or held' USING ERRCODE = 'JV001';
        END IF;
        UPDATE jivsd.run SET
            status = coalesce(new.status, run.status),
            paused = coalesce(new.paused, run.paused),
            output = coalesce(new.output, run.output),
            error = coalesce(new.error, run.error),
            code_hash = coalesce(new.code_hash, run.code_hash),
            started_at = coalesce(new.started_at, run.started_at),
            ended_at = coalesce(new.ended_at, run.ended_at),
            wake_at = CASE WHEN new.status IS NULL THEN coalesce(new.wake_at, run.wake_at) ELSE new.wake_at END,
            attributes = coalesce(new.attributes, run.attributes),
            parked = CASE WHEN new.status IS NULL THEN run.parked ELSE new.parked END
        FROM unnest(changed_ids, changed_statuses, changed_paused, changed_outputs, changed_errors, changed_codes,
                    changed_started, changed_ended, changed_wakes, changed_attributes, changed_parked)
            AS new (run_id, status, paused, output, error, code_hash, started_at, ended_at, wake_at, attributes, parked)
        WHERE run.run_id = new.run_id;
    END IF;
    IF cardinality(new_ids) > 0 THEN
        INSERT INTO jivsd.run (run_id, parent, chain, created_at, started_at, ended_at, wake_at, shard, paused, parked,
                               status, workflow, workflow_id, code_hash, lock_key, correlation_id, options, attributes,
                               input, output, error)
        SELECT * FROM unnest(new_ids, new_parents, new_chains, new_created, new_started, new_ended, new_wakes,
                             new_shards, new_paused, new_parked, new_statuses, new_workflows, new_workflow_ids,
                             new_codes, new_locks, new_correlations, new_options, new_attributes, new_inputs,
                             new_outputs, new_errors);
    END IF;
    IF cardinality(key_names) > 0 THEN
        INSERT INTO jivsd.idempotency_key (workflow, key, input_hash, run_id, at)
        SELECT * FROM unnest(key_workflows, key_names, key_hashes, key_runs, key_times) AS new (workflow, key)
        ORDER BY workflow, key;
    END IF;
    IF cardinality(attributed_ids) > 0 THEN
        DELETE FROM jivsd.attribute WHERE run_id = ANY (attributed_ids);
    END IF;
    IF cardinality(attribute_runs) > 0 THEN
        INSERT INTO jivsd.attribute (name, value, run_created_at, run_number, run_id, run_workflow)
        SELECT new.name, new.value, run.created_at, run.number, run.run_id, run.workflow
        FROM unnest(attribute_runs, attribute_names, attribute_values) AS new (run_id, name, value)
        JOIN jivsd.run ON run.run_id = new.run_id;
    END IF;
    IF cardinality(read_runs) > 0 THEN
        UPDATE jivsd.inbox SET state = 'READ', payload = NULL
        FROM unnest(read_runs, read_messages) AS new (run_id, message_id)
        JOIN jivsd.run ON run.run_id = new.run_id
        WHERE inbox.workflow = run.workflow AND inbox.workflow_id = run.workflow_id
            AND inbox.message_id = new.message_id;
    END IF;
    IF cardinality(ended_ids) > 0 THEN
        UPDATE jivsd.inbox SET state = 'LEFT' WHERE run_id = ANY (ended_ids) AND state = 'UNREAD';
        WITH gone AS (
            DELETE FROM jivsd.lock_ticket WHERE run_id = ANY (ended_ids) RETURNING key, ticket
        ), lowest AS (
            SELECT key, min(ticket) AS ticket FROM gone GROUP BY key ORDER BY key
        )
        UPDATE jivsd.lock SET fence = fence + 1 FROM lowest
        WHERE lock.key = lowest.key AND NOT EXISTS (
            SELECT FROM jivsd.lock_ticket AS other WHERE other.key = lowest.key AND other.ticket < lowest.ticket
        );
    END IF;
    PERFORM jivsd.append_events(shards, epochs, event_runs, event_times, event_checksums, event_seqs, event_attempts,
                                event_kinds, event_paths, event_by, event_payloads, event_hashes);
END
$$;

-- For people: the time that a number of microseconds means, and JSON that is kept as bytes.
CREATE FUNCTION jivsd.time_of(microseconds bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT timestamptz '1970-01-01 00:00:00+00' + microseconds * interval '1 microsecond' $$;

CREATE FUNCTION jivsd.json_of(bytes bytea) RETURNS json LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT convert_from(bytes, 'UTF8')::json $$;

-- For people: runs with readable times.
CREATE VIEW jivsd.runs AS
SELECT
    run_id, workflow, workflow_id, status, paused, jivsd.json_of(input) AS input, jivsd.json_of(output) AS output,
    jivsd.json_of(error) AS error, jivsd.time_of(created_at) AS created_at, jivsd.time_of(ended_at) AS ended_at,
    jivsd.time_of(wake_at) AS wake_at, parent, lock_key, correlation_id, jivsd.json_of(attributes) AS attributes,
    code_hash, shard, jivsd.json_of(options) AS options
FROM jivsd.run;

-- For people: what happened, with the payload as JSON.
CREATE VIEW jivsd.timeline AS
SELECT
    event.run_id, run.workflow, run.workflow_id, run.status, event.seq, jivsd.time_of(event.at) AS at, event.kind,
    event.path, event.attempt, event."by", jivsd.json_of(coalesce(event.payload, payload.body)) AS payload
FROM jivsd.event
LEFT JOIN jivsd.run ON run.run_id = event.run_id
LEFT JOIN jivsd.payload ON payload.hash = event.payload_hash;

-- For people: what was asked for in SQL and is not done, or was refused.
CREATE VIEW jivsd.requests AS
SELECT
    id, kind, workflow, workflow_id, name, key, CASE state WHEN 'NEW' THEN 'PENDING' ELSE state END AS state, why,
    run_id, tries, jivsd.time_of(at) AS at, "by", shard, jivsd.json_of(payload) AS payload,
    jivsd.json_of(options) AS options
FROM jivsd.request;

-- The shard that a workflow id belongs to: CRC-32, as everybody computes it, here by four bits at a time.
CREATE FUNCTION jivsd.shard_of(workflow_id text) RETURNS integer LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    steps CONSTANT bigint[] :=
        '{0,498536548,997073096,651767980,1994146192,1802195444,1303535960,1342533948,'
        '3988292384,4027552580,3604390888,3412177804,2607071920,2262029012,2685067896,3183342108}';
    bytes CONSTANT bytea := convert_to(workflow_id, 'UTF8');
    sum bigint := 4294967295;
BEGIN
    FOR place IN 0 .. length(bytes) - 1 LOOP
        sum := sum # get_byte(bytes, place);
        sum := sum >> 4 # steps[(sum & 15) + 1];
        sum := sum >> 4 # steps[(sum & 15) + 1];
    END LOOP;
    RETURN (sum # 4294967295) % 64;
END
$$;

-- For users of the database, inside their own transactions; nobody may call them to whom that was not granted. Each
-- leaves one request, which the daemon finds when the transaction is committed, and locks nothing.
-- Starts a run. workflow_id: a new one by default. options: those of a start over HTTP, such as {"priority": 5}.
-- Returns the id that the run will have: see jivsd.outcome.
CREATE FUNCTION jivsd.start(
    workflow text, input jsonb DEFAULT 'null', workflow_id text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    options jsonb DEFAULT '{}'
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known CONSTANT text[] := '{correlation_id,lock_key,lock_wait,timeout,priority,delay,start_at,attributes}';
    wrong text;
    milliseconds CONSTANT bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
    clock CONSTANT bytea := substring(int8send(milliseconds) FROM 3);
    drawn CONSTANT bytea := overlay(uuid_send(gen_random_uuid()) PLACING clock FROM 1);
    id CONSTANT uuid := encode(set_bit(set_bit(drawn, 52, 1), 53, 1), 'hex');  -- a UUIDv7
BEGIN
    IF jsonb_typeof(coalesce(options, '{}')) <> 'object' THEN
        RAISE EXCEPTION 'jivsd.start: options must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT string_agg(key, ', ' ORDER BY key) INTO wrong FROM jsonb_object_keys(options) AS key
    WHERE key <> ALL (known);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'jivsd.start: there is no option %; there are: %', wrong, array_to_string(known, ', ')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM jivsd.ask('start', id, workflow, coalesce(workflow_id, id::text), '', idempotency_key, input, options);
    RETURN id;
END
$$;

-- Sends a signal to the open run of a workflow id. Sent again with the same message id, it is not applied again.
-- Returns the message id, a new one by default.
CREATE FUNCTION jivsd.signal(
    workflow text, workflow_id text, name text, payload jsonb DEFAULT 'null', message_id text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id CONSTANT uuid := gen_random_uuid();
    key CONSTANT text := coalesce(message_id, id::text);
BEGIN
    IF coalesce(name, '') = '' THEN
        RAISE EXCEPTION 'jivsd.signal: a signal needs a name' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM jivsd.ask('signal', id, workflow, workflow_id, name, key, payload, '{}');
    RETURN key;
END
$$;

-- Asks the open run of a workflow id to cancel: it compensates and ends CANCELLED. Returns the id of the request.
CREATE FUNCTION jivsd.cancel(workflow text, workflow_id text, reason text DEFAULT '') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id CONSTANT uuid := gen_random_uuid();
BEGIN
    PERFORM jivsd.ask('cancel', id, workflow, workflow_id, '', id::text, to_jsonb(coalesce(reason, '')), '{}');
    RETURN id;
END
$$;

-- Leaves a request; for the functions above, which have its owner's rights.
CREATE FUNCTION jivsd.ask(
    kind text, id uuid, workflow text, workflow_id text, name text, key text, payload jsonb, options jsonb
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    body CONSTANT bytea := convert_to(coalesce(payload, 'null')::text, 'UTF8');
    wrong CONSTANT text := CASE
        WHEN coalesce(workflow, '') = '' THEN 'a workflow must be named'
        WHEN strpos(workflow, ':') > 0 THEN format('the name of a workflow has no colon: %L', workflow)
        WHEN coalesce(workflow_id, '') = '' THEN 'a workflow id must not be empty'
        WHEN length(workflow_id) > 512 THEN 'a workflow id has at most 512 characters'
        WHEN key = '' THEN 'an idempotency key or message id must not be empty'
        WHEN length(key) > 512 THEN 'an idempotency key or message id has at most 512 characters'
        WHEN length(body) > 1048576
            THEN format('the JSON is too large: %s bytes, at most 1048576 are accepted', length(body))
    END;
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'jivsd.%: %', kind, wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO jivsd.request (id, at, shard, tries, state, kind, workflow, workflow_id, name, key, "by", payload,
                               options)
    VALUES (id, extract(epoch FROM clock_timestamp()) * 1000000, jivsd.shard_of(workflow_id), 0, 'NEW', kind, workflow,
            workflow_id, name, key, session_user, body, convert_to(coalesce(options, '{}')::text, 'UTF8'));
END
$$;

-- What has become of what was asked for: STARTED (with the run's status), EXISTING (the run had been started before
-- under the same idempotency key), PENDING, REFUSED or CLOSED (refused, and somebody has seen it), with the reason.
-- No row: it is not committed, was removed since, or was carried out and has no run of its own.
CREATE FUNCTION jivsd.outcome(id uuid) RETURNS TABLE (state text, run_id uuid, status text, why text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'STARTED', run.run_id, run.status, NULL FROM jivsd.run WHERE run.run_id = outcome.id
    UNION ALL
    SELECT CASE request.state WHEN 'NEW' THEN 'PENDING' ELSE request.state END, request.run_id, run.status, request.why
    FROM jivsd.request LEFT JOIN jivsd.run ON run.run_id = request.run_id WHERE request.id = outcome.id
    LIMIT 1
$$;

REVOKE ALL ON FUNCTION jivsd.start, jivsd.signal, jivsd.cancel, jivsd.ask, jivsd.outcome FROM PUBLIC;
