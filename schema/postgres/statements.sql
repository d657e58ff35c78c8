-- Every statement that the PostgreSQL store runs. "-- name:" is how the code calls it; the comment says what it is for.
-- The schema jivsd stands for the one that is configured.

-- name: begin
-- Begins a batch that needs more than one statement.
BEGIN ISOLATION LEVEL READ COMMITTED

-- name: commit
-- Makes a batch durable.
COMMIT

-- name: rollback
-- Forgets a batch.
ROLLBACK

-- name: savepoint
-- Begins what one entry of a batch does on its own account.
SAVEPOINT entry

-- name: release
-- Keeps what the entry did.
RELEASE entry

-- name: undo
-- Forgets what the entry did; the savepoint stays and is released next.
ROLLBACK TO entry

-- name: write_batch
-- Writes what can be written together, and checks the fence; see the function. Lists come as the text of an array, but
-- for those of bytes: the driver looks at each element of a list several times.
SELECT jivsd.write_batch($1::text::integer[], $2::text::bigint[], $3::text::uuid[], $4::text::uuid[], $5::text::uuid[],
                         $6::text::bigint[], $7::text::bigint[], $8::text::bigint[], $9::text::bigint[],
                         $10::text::integer[], $11::text::boolean[], $12::text::boolean[], $13::text::text[],
                         $14::text::text[], $15::text::text[], $16::text::text[], $17::text::text[], $18::text::text[],
                         $19, $20, $21, $22, $23, $24::text::text[], $25::text::text[], $26::text::text[],
                         $27::text::uuid[], $28::text::bigint[], $29::text::uuid[], $30::text::text[],
                         $31::text::boolean[], $32, $33, $34::text::text[], $35::text::bigint[], $36::text::bigint[],
                         $37::text::bigint[], $38, $39::text::boolean[], $40::text::uuid[], $41::text::uuid[],
                         $42::text::text[], $43::text::text[], $44::text::uuid[], $45::text::text[], $46::text::uuid[],
                         $47::text::uuid[], $48::text::bigint[], $49::text::bigint[], $50::text::integer[],
                         $51::text::integer[], $52::text::text[], $53::text::text[], $54::text::text[], $55,
                         $56::text::text[])

-- name: put_messages
-- Puts messages from outside into the inbox, all or none; see the function.
SELECT jivsd.put_messages($1::text::uuid[], $2::text::bigint[], $3::text::text[], $4::text::text[], $5::text::text[],
                          $6::text::text[], $7::text::text[], $8::text::text[], $9)

-- name: put_and_write
-- The same, and then what write_batch writes, whose parameters come first.
SELECT jivsd.put_messages($57::text::uuid[], $58::text::bigint[], $59::text::text[], $60::text::text[],
                          $61::text::text[], $62::text::text[], $63::text::text[], $64::text::text[], $65),
       jivsd.write_batch($1::text::integer[], $2::text::bigint[], $3::text::uuid[], $4::text::uuid[], $5::text::uuid[],
                         $6::text::bigint[], $7::text::bigint[], $8::text::bigint[], $9::text::bigint[],
                         $10::text::integer[], $11::text::boolean[], $12::text::boolean[], $13::text::text[],
                         $14::text::text[], $15::text::text[], $16::text::text[], $17::text::text[], $18::text::text[],
                         $19, $20, $21, $22, $23, $24::text::text[], $25::text::text[], $26::text::text[],
                         $27::text::uuid[], $28::text::bigint[], $29::text::uuid[], $30::text::text[],
                         $31::text::boolean[], $32, $33, $34::text::text[], $35::text::bigint[], $36::text::bigint[],
                         $37::text::bigint[], $38, $39::text::boolean[], $40::text::uuid[], $41::text::uuid[],
                         $42::text::text[], $43::text::text[], $44::text::uuid[], $45::text::text[], $46::text::uuid[],
                         $47::text::uuid[], $48::text::bigint[], $49::text::bigint[], $50::text::integer[],
                         $51::text::integer[], $52::text::text[], $53::text::text[], $54::text::text[], $55,
                         $56::text::text[])

-- name: append_events
-- The same for a batch of nothing but events.
SELECT jivsd.append_events($1::text::integer[], $2::text::bigint[], $3::text::uuid[], $4::text::bigint[],
                           $5::text::bigint[], $6::text::integer[], $7::text::integer[], $8::text::text[],
                           $9::text::text[], $10::text::text[], $11, $12::text::text[])

-- name: epochs
-- The epochs of some shards.
SELECT id, epoch FROM jivsd.shard WHERE id = ANY ($1)

-- name: known_runs
-- Those of some runs that exist: whether they are open, and what they are called.
SELECT run_id::text, open, workflow, workflow_id FROM jivsd.run WHERE run_id = ANY ($1)

-- name: open_ids
-- The open runs of some pairs of a workflow and a workflow id.
SELECT run.workflow, run.workflow_id, run.run_id::text
FROM unnest($1::text[], $2::text[]) AS wanted (workflow, workflow_id)
JOIN jivsd.run ON run.workflow = wanted.workflow AND run.workflow_id = wanted.workflow_id AND run.open

-- name: newest_ids
-- The newest runs of some pairs of a workflow and a workflow id, open or not.
SELECT wanted.workflow, wanted.workflow_id, newest.run_id::text
FROM unnest($1::text[], $2::text[]) AS wanted (workflow, workflow_id)
CROSS JOIN LATERAL (
    SELECT run_id FROM jivsd.run WHERE run.workflow = wanted.workflow AND run.workflow_id = wanted.workflow_id
    ORDER BY created_at DESC, number DESC LIMIT 1
) AS newest

-- name: chain_ends
-- The open runs in which some that were continued as new go on.
SELECT earlier.run_id::text, run.run_id::text FROM jivsd.run AS earlier
JOIN jivsd.run ON run.workflow = earlier.workflow AND run.workflow_id = earlier.workflow_id AND run.open
WHERE earlier.run_id = ANY ($1) AND earlier.status = 'CONTINUED'
    AND run.chain = coalesce(earlier.chain, earlier.run_id)

-- name: known_keys
-- What is known of some pairs of a workflow and an idempotency key.
SELECT known.workflow, known.key, known.input_hash, known.run_id::text
FROM unnest($1::text[], $2::text[]) AS wanted (workflow, key)
JOIN jivsd.idempotency_key AS known ON known.workflow = wanted.workflow AND known.key = wanted.key

-- name: seen_messages
-- Those of some messages that were delivered before: to which run, what they were, and when they were sent if they have
-- not been read yet.
SELECT inbox.workflow, inbox.workflow_id, inbox.message_id, inbox.run_id::text, inbox.kind,
       CASE inbox.state WHEN 'UNREAD' THEN inbox.at END
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (workflow, workflow_id, message_id)
JOIN jivsd.inbox ON inbox.workflow = wanted.workflow AND inbox.workflow_id = wanted.workflow_id
    AND inbox.message_id = wanted.message_id

-- name: stored_events
-- Those of some events that are there already.
SELECT event.run_id::text, event.seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM unnest($1::uuid[], $2::integer[]) AS wanted (run_id, seq)
JOIN jivsd.event ON event.run_id = wanted.run_id AND event.seq = wanted.seq
LEFT JOIN jivsd.payload ON payload.hash = event.payload_hash

-- name: hold_runs
-- Locks the rows of some runs, apart from those that somebody else holds.
SELECT run_id::text FROM jivsd.run WHERE run_id = ANY ($1) ORDER BY run_id FOR UPDATE SKIP LOCKED

-- name: hold_open_runs
-- Keeps some runs from ending before this transaction does, apart from those whose rows somebody else holds.
SELECT run_id::text FROM jivsd.run WHERE run_id = ANY ($1) AND open ORDER BY run_id FOR KEY SHARE SKIP LOCKED

-- name: insert_messages
-- Puts messages into the inbox; those that were seen before are ignored.
INSERT INTO jivsd.inbox (run_id, at, workflow, workflow_id, message_id, kind, path, "by", payload, state)
SELECT run_id, at, workflow, workflow_id, message_id, kind, path, "by", payload, 'UNREAD'
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bytea[]) WITH ORDINALITY
    AS new (run_id, at, workflow, workflow_id, message_id, kind, path, "by", payload, place)
ORDER BY place
ON CONFLICT (workflow, workflow_id, message_id) DO NOTHING
RETURNING workflow, workflow_id, message_id

-- name: hand_on_messages
-- The run is continued as new: what it did not read is for the run that goes on for it, but for what children said.
UPDATE jivsd.inbox SET run_id = $2 WHERE run_id = $1 AND state = 'UNREAD' AND kind <> 'ChildEnded'

-- name: use_payloads
-- Stores large payloads, or counts more uses of them.
INSERT INTO jivsd.payload (hash, uses, body)
SELECT hash, uses, body FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS new (hash, uses, body) ORDER BY hash
ON CONFLICT (hash) DO UPDATE SET uses = payload.uses + excluded.uses

-- name: publish
-- Events for the outside.
INSERT INTO jivsd.outbox (run_id, at, path, workflow, workflow_id, topic, payload)
SELECT run_id, at, path, workflow, workflow_id, topic, payload
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[]) WITH ORDINALITY
    AS new (run_id, at, path, workflow, workflow_id, topic, payload, place)
ORDER BY place

-- name: put_progress
-- What steps have said last of how far they are.
INSERT INTO jivsd.progress (run_id, path, attempt, at, details, done, total)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::bigint[], $5::bytea[], $6::float8[], $7::float8[])
ON CONFLICT (run_id, path) DO UPDATE
SET attempt = excluded.attempt, at = excluded.at, details = excluded.details, done = excluded.done,
    total = excluded.total

-- name: forget_progress
-- Steps have settled.
DELETE FROM jivsd.progress USING unnest($1::uuid[], $2::text[]) AS gone (run_id, path)
WHERE progress.run_id = gone.run_id AND progress.path = gone.path

-- name: progress
-- What the steps of some runs have said last of how far they are.
SELECT run_id::text, path, attempt, at, details, done, total FROM jivsd.progress
WHERE run_id = ANY ($1) ORDER BY run_id, path

-- name: lock_holder
-- The run that holds a lock key: the one with the lowest ticket.
SELECT run_id::text FROM jivsd.lock_ticket WHERE key = $1 ORDER BY ticket LIMIT 1

-- name: draw_ticket
-- Puts a run at the end of the queue of a lock key; the first ticket makes the key.
WITH drawn AS (
    INSERT INTO jivsd.lock (key, last_ticket, fence) VALUES ($1, 1, 1)
    ON CONFLICT (key) DO UPDATE SET last_ticket = lock.last_ticket + 1
    RETURNING key, last_ticket
)
INSERT INTO jivsd.lock_ticket (key, ticket, run_id, path, since, granted)
SELECT key, last_ticket, $2, $3, $4, false FROM drawn

-- name: grant_ticket
-- It is recorded that a run has the lock for which it stood in the queue.
UPDATE jivsd.lock_ticket SET granted = true WHERE run_id = $1 AND path = $2

-- name: has_ticket
-- Whether a run stands in a queue, for the lock at a path in its code.
SELECT EXISTS (SELECT FROM jivsd.lock_ticket WHERE run_id = $1 AND path = $2)

-- name: give_back
-- Takes a run out of queues, by the paths in its code; when a holder leaves, the next one gets a higher fence number.
WITH gone AS (
    DELETE FROM jivsd.lock_ticket WHERE run_id = $1 AND path = ANY ($2) RETURNING key, ticket
), lowest AS (
    SELECT key, min(ticket) AS ticket FROM gone GROUP BY key ORDER BY key
)
UPDATE jivsd.lock SET fence = fence + 1 FROM lowest
WHERE lock.key = lowest.key AND NOT EXISTS (
    SELECT FROM jivsd.lock_ticket AS other WHERE other.key = lowest.key AND other.ticket < lowest.ticket
)

-- name: give_back_others
-- The same, but for some paths: it stays in the queues for those.
WITH gone AS (
    DELETE FROM jivsd.lock_ticket WHERE run_id = $1 AND path <> ALL ($2) RETURNING key, ticket
), lowest AS (
    SELECT key, min(ticket) AS ticket FROM gone GROUP BY key ORDER BY key
)
UPDATE jivsd.lock SET fence = fence + 1 FROM lowest
WHERE lock.key = lowest.key AND NOT EXISTS (
    SELECT FROM jivsd.lock_ticket AS other WHERE other.key = lowest.key AND other.ticket < lowest.ticket
)

-- name: hand_on_ticket
-- The run is continued as new: the run that goes on for it has its lock from the beginning.
UPDATE jivsd.lock_ticket SET run_id = $2, granted = false WHERE run_id = $1 AND path = '' AND key = $3 RETURNING ticket

-- name: raise_fence
-- The next fence number of a lock key: its holder was taken over.
UPDATE jivsd.lock SET fence = fence + 1 WHERE key = $1 RETURNING fence

-- name: lock_queue
-- Who holds and who waits for one lock key, and whether it is recorded that it has it: so many from the first on.
SELECT lock_ticket.key, ticket, run_id::text, fence, since, path, granted
FROM jivsd.lock_ticket JOIN jivsd.lock ON lock.key = lock_ticket.key
WHERE lock_ticket.key = $1 ORDER BY ticket LIMIT $2

-- name: lock_heads
-- Who holds each lock key.
SELECT head.key, ticket, run_id::text, fence, since, path, granted
FROM jivsd.lock_head AS head JOIN jivsd.lock ON lock.key = head.key ORDER BY head.key

-- name: lock_queues
-- The same for all lock keys: so many of each.
SELECT key, ticket, run_id::text, fence, since, path, granted
FROM (
    SELECT lock_ticket.key, ticket, run_id, fence, since, path, granted,
           row_number() OVER (PARTITION BY lock_ticket.key ORDER BY ticket) AS place
    FROM jivsd.lock_ticket JOIN jivsd.lock ON lock.key = lock_ticket.key
) AS queues
WHERE $1::bigint IS NULL OR place <= $1 ORDER BY key, ticket

-- name: events
-- A run's events after a seq, in order.
SELECT seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM jivsd.event LEFT JOIN jivsd.payload ON payload.hash = event.payload_hash
WHERE run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3

-- name: find_event
-- A run's event of a kind at a path.
SELECT seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM jivsd.event LEFT JOIN jivsd.payload ON payload.hash = event.payload_hash
WHERE run_id = $1 AND kind = $2 AND path = $3 ORDER BY seq LIMIT 1

-- name: run
-- Some runs.
SELECT run_id::text, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error
FROM jivsd.run WHERE run_id = ANY ($1)

-- name: current_run
-- The open run of a workflow id, or else its newest one.
SELECT run_id::text, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error
FROM jivsd.run WHERE run_id = coalesce(
    (SELECT run_id FROM jivsd.run WHERE workflow = $1 AND workflow_id = $2 AND open),
    (SELECT run_id FROM jivsd.run WHERE workflow = $1 AND workflow_id = $2 ORDER BY created_at DESC, number DESC LIMIT 1)
)

-- name: continued
-- The newest run in which one that was continued as new goes on, open or not.
SELECT run.run_id::text, run.workflow, run.workflow_id, run.code_hash, run.shard, run.status, run.paused, run.parked,
       run.created_at, run.started_at, run.ended_at, run.wake_at, run.options, run.attributes, run.input, run.output,
       run.error
FROM jivsd.run AS earlier
JOIN jivsd.run ON run.workflow = earlier.workflow AND run.workflow_id = earlier.workflow_id
WHERE earlier.run_id = $1 AND earlier.status = 'CONTINUED' AND run.chain = coalesce(earlier.chain, earlier.run_id)
ORDER BY run.number DESC LIMIT 1

-- name: open_runs
-- Open runs that are not parked by run id, of some shards or of all, for recovery.
SELECT run_id::text, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error
FROM jivsd.run WHERE open AND NOT parked AND run_id > $1 AND ($3::integer[] IS NULL OR shard = ANY ($3))
ORDER BY run.run_id LIMIT $2

-- name: wakes
-- When parked runs have to be brought back because time has come, earliest first, of some shards or of all.
SELECT wake_at, run_id::text FROM jivsd.run
WHERE parked AND wake_at IS NOT NULL AND (wake_at, run_id) > ($1, $2) AND ($4::integer[] IS NULL OR shard = ANY ($4))
ORDER BY wake_at, run.run_id LIMIT $3

-- name: called_runs
-- The parked runs, of some shards or of all, that have something to do at once: an unread message, or it is their turn
-- for a lock. With a time also those of the other open ones that have a message from before that.
SELECT run.run_id::text FROM jivsd.inbox JOIN jivsd.run ON run.run_id = inbox.run_id
WHERE inbox.state = 'UNREAD' AND run.open AND ($1::integer[] IS NULL OR run.shard = ANY ($1))
    AND (run.parked OR inbox.at < $2)
UNION
SELECT run.run_id::text
FROM jivsd.lock_head AS holder
JOIN jivsd.run ON run.run_id = holder.run_id
WHERE run.parked AND NOT holder.granted AND ($1::integer[] IS NULL OR run.shard = ANY ($1))
ORDER BY 1

-- name: recorded_events
-- The events of some runs, in order for each run.
SELECT event.run_id::text, seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM jivsd.event LEFT JOIN jivsd.payload ON payload.hash = event.payload_hash
WHERE event.run_id = ANY ($1) ORDER BY event.run_id, seq

-- name: recorded_messages
-- The unread messages of some runs, in the order in which they came.
SELECT workflow, workflow_id, message_id, kind, path, payload, at, "by", run_id::text
FROM jivsd.inbox WHERE run_id = ANY ($1) AND state = 'UNREAD' ORDER BY number

-- name: list_runs
-- A page of runs, newest first; the reader puts its conditions in the place of "true", what leads to the runs in that
-- of the table, and their order in that of the time.
SELECT run.run_id::text, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at,
       ended_at, wake_at, options, attributes, input, output, error, created_at AS time, number AS place
FROM jivsd.run WHERE true ORDER BY time DESC, place DESC LIMIT :limit

-- name: count_attribute
-- How many runs that were created between two times have an attribute, as far as one has to know.
SELECT count(*)
FROM (
    SELECT FROM jivsd.attribute
    WHERE name = $1 AND value = $2 AND run_created_at >= $3 AND run_created_at < $4 LIMIT $5
) AS found

-- name: count_runs
-- How many runs have each status.
SELECT status, sum(runs)::bigint FROM jivsd.run_count WHERE status <> 'STARTED' GROUP BY status HAVING sum(runs) > 0

-- name: count_paused
-- How many runs are paused.
SELECT count(*) FROM jivsd.run WHERE paused

-- name: count_unread
-- How many messages no run has read yet.
SELECT count(*) FROM jivsd.inbox WHERE state = 'UNREAD'

-- name: statistics_counts
-- How many runs of each workflow (or one) are in each status, and of those how many were started and have ended from a
-- time to the begin of an hour ($3). Since then: how many have ended; and, as STARTED, how many were started.
WITH counted AS (
    SELECT workflow, status, sum(runs)::bigint AS runs FROM jivsd.run_count
    WHERE status <> 'STARTED' AND ($2::text IS NULL OR workflow = $2)
    GROUP BY workflow, status HAVING sum(runs) > 0
), since AS (
    SELECT workflow, status, sum(runs)::bigint AS runs
    FROM (
        SELECT hour, workflow, status, runs FROM jivsd.run_hour
        UNION ALL SELECT hour, workflow, status, runs FROM jivsd.run_count
    ) AS one
    WHERE hour >= $3 / 3600000000 AND ($2::text IS NULL OR workflow = $2)
    GROUP BY workflow, status
)
SELECT
    counted.workflow, counted.status, counted.runs,
    (
        SELECT count(*) FROM jivsd.run
        WHERE run.workflow = counted.workflow AND run.status = counted.status AND created_at >= $1 AND created_at < $3
    ),
    (
        SELECT count(*) FROM jivsd.run
        WHERE run.workflow = counted.workflow AND run.status = counted.status
            AND ended_at >= $1 AND ended_at < $3 AND ended_at IS NOT NULL
    ) + coalesce(since.runs, 0)
FROM counted LEFT JOIN since USING (workflow, status)
UNION ALL
SELECT workflow, status, 0, runs, 0 FROM since WHERE status = 'STARTED'

-- name: statistics_endings
-- When the runs of some workflows and statuses ended that did so last, and how long they had been there.
SELECT wanted.workflow, wanted.status, ended_at, duration, run_id
FROM unnest($1::text[], $2::text[]) AS wanted (workflow, status)
CROSS JOIN LATERAL (
    SELECT ended_at, ended_at - created_at AS duration, run_id::text FROM jivsd.run
    WHERE run.workflow = wanted.workflow AND run.status = wanted.status AND ended_at >= $3 AND ended_at IS NOT NULL
    ORDER BY ended_at DESC LIMIT $4
) AS ending

-- name: statistics_incidents
-- How many incidents of each workflow (or one) were opened since a time, and how many are open; of those with any.
SELECT workflow, count(*) FILTER (WHERE at >= $1), count(*) FILTER (WHERE state = 'OPEN')
FROM (
    SELECT workflow, state, at FROM jivsd.incident WHERE workflow IS NOT NULL AND state = 'OPEN'
    UNION ALL
    SELECT workflow, state, at FROM jivsd.incident WHERE workflow IS NOT NULL AND state = 'RESOLVED' AND at >= $1
) AS one
WHERE $2::text IS NULL OR workflow = $2
GROUP BY workflow

-- name: failed_attempts
-- How many attempts of steps failed among the first events of some runs.
SELECT count(*)
FROM unnest($1::uuid[]) AS wanted (run_id)
CROSS JOIN LATERAL (SELECT kind FROM jivsd.event WHERE event.run_id = wanted.run_id LIMIT $2) AS early
WHERE kind = 'AttemptFailed'

-- name: fold_counts
-- Adds up what was counted, statement by statement, leaving to others what they are adding up. What belongs to an hour
-- goes to the others of that hour.
WITH taken AS (
    DELETE FROM jivsd.run_count
    WHERE ctid = ANY (ARRAY (SELECT ctid FROM jivsd.run_count FOR UPDATE SKIP LOCKED))
    RETURNING hour, status, workflow, runs
), earlier AS (
    DELETE FROM jivsd.run_hour
    WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM jivsd.run_hour WHERE hour = ANY (ARRAY (SELECT hour FROM taken)) FOR UPDATE SKIP LOCKED
    ))
    RETURNING hour, status, workflow, runs
), totals AS (
    INSERT INTO jivsd.run_count (status, workflow, runs)
    SELECT status, workflow, sum(runs) FROM taken WHERE status <> 'STARTED'
    GROUP BY status, workflow HAVING sum(runs) <> 0
)
INSERT INTO jivsd.run_hour
SELECT hour, status, workflow, sum(runs) FROM (TABLE taken UNION ALL TABLE earlier) AS one WHERE hour IS NOT NULL
GROUP BY hour, status, workflow HAVING sum(runs) <> 0

-- name: outbox
-- Events for the outside after a number, in order.
SELECT number, run_id::text, path, workflow, workflow_id, topic, payload, at
FROM jivsd.outbox WHERE number > $1 AND ($2::text IS NULL OR topic = $2) ORDER BY number LIMIT $3

-- name: feed
-- What was appended after a place in the feed, in order, and in the same snapshot how the feed stands. $2, $3: how far
-- each stream was read beyond $1.
SELECT feed_state.*, page.*
FROM jivsd.feed_state
LEFT JOIN (
    SELECT number, stream, runs::text[] AS runs, seqs FROM (
        SELECT *, sum(events) OVER (ORDER BY number) - events AS before FROM (
            SELECT feed.* FROM jivsd.feed
            LEFT JOIN unnest($2::integer[], $3::bigint[]) AS seen (stream, number) ON seen.stream = feed.stream
            WHERE feed.number > $1 AND feed.number > coalesce(seen.number, 0) AND feed.events > 0
            ORDER BY feed.number LIMIT $4
        ) AS following
    ) AS summed
    WHERE before < $4
) AS page ON true
ORDER BY page.number

-- name: feed_end
-- How the feed stands, and the last number of each stream.
SELECT feed_state.*, last.stream, last.number
FROM jivsd.feed_state
LEFT JOIN (SELECT stream, max(number) AS number FROM jivsd.feed WHERE events > 0 GROUP BY stream) AS last ON true

-- name: feed_events
-- Events as those see them who follow them all: $1, $2 are run ids and seqs. What was removed meanwhile is left out.
SELECT wanted.place, event.at, event.kind, event.path, event.attempt, event."by",
       run.workflow, run.workflow_id, run.status
FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY AS wanted (run_id, seq, place)
JOIN jivsd.event ON event.run_id = wanted.run_id AND event.seq = wanted.seq
JOIN jivsd.run ON run.run_id = wanted.run_id

-- name: oldest_feed
-- The oldest rows of the feed.
SELECT number, at, events FROM jivsd.feed ORDER BY number LIMIT $1

-- name: trim_feed
-- Removes the rows of the feed up to a number, and leaves a mark.
WITH gone AS (DELETE FROM jivsd.feed WHERE number < $1)
UPDATE jivsd.feed SET events = 0, runs = '{}', seqs = '{}' WHERE number = $1

-- name: clear_outbox
-- Forgets some of the oldest events for the outside.
DELETE FROM jivsd.outbox
WHERE number IN (SELECT number FROM jivsd.outbox WHERE at < $1 ORDER BY at LIMIT $2)
RETURNING number

-- name: put_incident
-- An incident, or what has become of it.
INSERT INTO jivsd.incident (incident_id, kind, message, at, run_id, workflow, path, details, state, resolution,
                            resolved_by, resolved_why, resolved_at, history, acknowledged, fingerprint)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (incident_id) DO UPDATE SET
    kind = excluded.kind, message = excluded.message, at = excluded.at, run_id = excluded.run_id,
    workflow = excluded.workflow, path = excluded.path, details = excluded.details, state = excluded.state,
    resolution = excluded.resolution, resolved_by = excluded.resolved_by, resolved_why = excluded.resolved_why,
    resolved_at = excluded.resolved_at, history = excluded.history, acknowledged = excluded.acknowledged,
    fingerprint = excluded.fingerprint

-- name: list_incidents
-- A page of incidents, newest first; the reader puts its conditions in the place of "true".
SELECT incident_id, kind, message, at, run_id, workflow, path, details, state, resolution, resolved_by, resolved_why,
       resolved_at, history, fingerprint, number
FROM jivsd.incident WHERE true ORDER BY number DESC LIMIT :limit

-- name: group_incidents
-- Incidents by fingerprint, those that were seen last first; the reader puts its conditions in the place of "true".
SELECT counted.fingerprint, kind, message, incident_id, times, first_at, last_at, workflow, path, runs, counted.seen
FROM (
    SELECT fingerprint, count(*) AS times, min(at) AS first_at, max(at) AS last_at, count(DISTINCT run_id) AS runs,
           count(*) FILTER (WHERE acknowledged) AS seen, max(number) AS newest
    FROM jivsd.incident WHERE true GROUP BY fingerprint ORDER BY last_at DESC LIMIT :limit
) AS counted
JOIN jivsd.incident ON incident.number = counted.newest
ORDER BY last_at DESC

-- name: count_incidents
-- How many incidents are open.
SELECT count(*) FROM jivsd.incident WHERE state = 'OPEN'

-- name: put_plugin
-- Keeps the source of a plugin.
INSERT INTO jivsd.plugin_code (code_hash, name, files, at) VALUES ($1, $2, $3, $4) ON CONFLICT (code_hash) DO NOTHING

-- name: plugin
-- The source of a plugin.
SELECT code_hash, name, files, at FROM jivsd.plugin_code WHERE code_hash = $1

-- name: plugin_migrations
-- The migrations of a plugin that have been applied, in order.
SELECT number, hash FROM jivsd.plugin_migration WHERE plugin = $1 ORDER BY number

-- name: search_path
-- The schemas in which names are looked for that have none, but for our own.
SELECT quote_ident(name) FROM unnest(current_schemas(false)) WITH ORDINALITY AS schemas (name, place)
WHERE name <> $1 ORDER BY place

-- name: applied_migration
-- The hash of a plugin's migration that has been applied.
SELECT hash FROM jivsd.plugin_migration WHERE plugin = $1 AND number = $2

-- name: put_plugin_migration
-- A migration of a plugin has been applied.
INSERT INTO jivsd.plugin_migration (plugin, number, name, hash, tables) VALUES ($1, $2, $3, $4, $5)

-- name: all_tables
-- The tables that are there, apart from the server's own.
SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'p') AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\_%'

-- name: plugin_tables
-- The schema and the name of each table that plugins' migrations have made, as far as it is still there.
SELECT DISTINCT nspname, relname FROM jivsd.plugin_migration CROSS JOIN unnest(tables) AS made
JOIN pg_class ON pg_class.oid = to_regclass(made) JOIN pg_namespace ON pg_namespace.oid = relnamespace
ORDER BY relname

-- name: holder
-- Which session has an advisory lock, and in which mode.
SELECT format('%s, process %s of %s', application_name, pid, coalesce(host(client_addr), 'this machine')) AS who, mode
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND classid = $1::bigint::oid
    AND objid = (hashtext($2)::bigint & 4294967295)::oid
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: claim_shards
-- A node takes all shards, under an epoch that is above all that were. Rows are locked in the order of all batches.
WITH held AS (SELECT id, epoch FROM jivsd.shard ORDER BY id FOR NO KEY UPDATE)
UPDATE jivsd.shard SET
    epoch = (SELECT max(epoch) + 1 FROM held), node = $1, claim = $2,
    since = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM held WHERE shard.id = held.id RETURNING shard.epoch

-- name: claim_some
-- A node takes those of some shards that are still at the epochs at which it saw them.
WITH held AS (SELECT id FROM jivsd.shard WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE)
UPDATE jivsd.shard SET
    epoch = shard.epoch + 1, node = $3, claim = $4, since = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM held JOIN unnest($1::integer[], $2::bigint[]) AS seen (id, epoch) USING (id)
WHERE shard.id = held.id AND shard.epoch = seen.epoch
RETURNING shard.id, shard.epoch

-- name: release_shards
-- Nobody owns those of some shards any more that this opening of the database owns. The epoch may have been raised since
-- it was told, by nobody else.
WITH held AS (SELECT id FROM jivsd.shard WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE)
UPDATE jivsd.shard SET node = ''
FROM held JOIN unnest($1::integer[], $2::bigint[]) AS known (id, epoch) USING (id)
WHERE shard.id = held.id AND shard.epoch >= known.epoch AND shard.node = $3 AND shard.claim = $4

-- name: owners
-- Who owns which shard, under which epoch, since when.
SELECT id, epoch, node, since FROM jivsd.shard ORDER BY id

-- name: members
-- The nodes that have the database, and for how many microseconds their rows are good.
SELECT node, instance::text, joined_at, until, "by", leaving, "full", version,
       until - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "left"
FROM jivsd.lease ORDER BY node

-- name: beat
-- Makes or renews a node's row; nothing comes back when another opening of the database has the name, and its row is
-- good, or newer than ours was.
INSERT INTO jivsd.lease (node, instance, joined_at, until, "by", leaving, "full", version)
SELECT $1, $2::uuid, at, at + $3::bigint, $4, $5, $6, $7
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at) AS now
ON CONFLICT (node) DO UPDATE SET
    until = excluded.until, "by" = excluded."by", leaving = excluded.leaving, "full" = excluded."full"
WHERE lease.instance = excluded.instance
RETURNING joined_at

-- name: remove_rows
-- Removes the row that a node's name has, or ($2: the node does not share) all rows.
DELETE FROM jivsd.lease WHERE node = $1 OR NOT $2 OR "by" = 'alone'

-- name: leave
-- Removes a node's own row.
DELETE FROM jivsd.lease WHERE node = $1 AND instance = $2

-- name: forget_nodes
-- Removes rows that have been over for some microseconds, of nodes that own nothing.
DELETE FROM jivsd.lease
WHERE until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1
    AND NOT EXISTS (SELECT FROM jivsd.shard WHERE shard.node = lease.node)

-- name: raise_epochs
-- A node raises the epochs of shards that it still owns under the epochs that it knows.
WITH held AS (SELECT id FROM jivsd.shard WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE)
UPDATE jivsd.shard SET epoch = shard.epoch + 1
FROM held JOIN unnest($1::integer[], $2::bigint[]) AS known (id, epoch) USING (id)
WHERE shard.id = held.id AND shard.epoch = known.epoch AND shard.node = $3 AND shard.claim = $4
RETURNING shard.id, shard.epoch

-- name: own_epochs
-- The epochs of some shards as far as this opening of the database owns them.
SELECT id, epoch FROM jivsd.shard WHERE id = ANY ($1) AND node = $2 AND claim = $3

-- name: end_blockers
-- Ends the sessions that keep another one waiting.
SELECT pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS pid

-- name: meta
-- What the database says about itself.
SELECT value FROM jivsd.meta WHERE name = $1

-- name: put_meta
-- Says something about the database.
INSERT INTO jivsd.meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: probe
-- Writes something small, to see whether that works.
INSERT INTO jivsd.meta (name, value) VALUES ('probe', '1')
ON CONFLICT (name) DO UPDATE SET value = (meta.value::bigint + 1)::text

-- name: insert_shards
-- The shards, when the database is made; nobody owns them yet.
INSERT INTO jivsd.shard (id, epoch, since, node) SELECT id, 0, 0, '' FROM generate_series(0, $1 - 1) AS id

-- name: count_pairs
-- Which workflows have runs in which statuses.
SELECT workflow, status FROM jivsd.run_count WHERE status <> 'STARTED'
GROUP BY workflow, status HAVING sum(runs) > 0

-- name: list_prunable
-- Ended runs, oldest first, apart from those whose parent or whose child is open: a parent that comes back would start
-- its child again, and a child's end would reach nobody. The reader puts in conditions and lead as in list_runs.
SELECT run.run_id::text, created_at AS time, number AS place
FROM jivsd.run WHERE true
    AND NOT EXISTS (SELECT FROM jivsd.run AS elder WHERE elder.run_id = run.parent AND elder.open)
    AND NOT EXISTS (SELECT FROM jivsd.run AS child WHERE child.parent = run.run_id AND child.open)
ORDER BY time, place LIMIT :limit

-- name: event_counts
-- How many events some runs have.
SELECT run_id::text, count(*) FROM jivsd.event WHERE run_id = ANY ($1) GROUP BY run_id

-- name: removable
-- Those of some runs that have ended and hold nobody up (see list_prunable), and what they are called. Their rows are
-- locked, so that nobody else removes them meanwhile.
SELECT run_id::text, workflow, workflow_id FROM jivsd.run
WHERE run_id = ANY ($1) AND NOT open
    AND NOT EXISTS (SELECT FROM jivsd.run AS elder WHERE elder.run_id = run.parent AND elder.open)
    AND NOT EXISTS (SELECT FROM jivsd.run AS child WHERE child.parent = run.run_id AND child.open)
ORDER BY run.run_id FOR UPDATE SKIP LOCKED

-- name: release_payloads
-- The events of some runs no longer use their large payloads; those that none uses any more go.
WITH used AS (
    SELECT payload_hash AS hash, count(*) AS times FROM jivsd.event
    WHERE run_id = ANY ($1) AND payload_hash IS NOT NULL GROUP BY payload_hash
), held AS (
    SELECT payload.hash FROM jivsd.payload JOIN used ON used.hash = payload.hash ORDER BY payload.hash
    FOR UPDATE OF payload
), changed AS (
    UPDATE jivsd.payload SET uses = payload.uses - used.times FROM used, held
    WHERE payload.hash = used.hash AND held.hash = used.hash AND payload.uses > used.times
)
DELETE FROM jivsd.payload USING used WHERE payload.hash = used.hash AND payload.uses <= used.times

-- name: delete_events
-- Removes the journals of some runs.
DELETE FROM jivsd.event WHERE run_id = ANY ($1)

-- name: delete_incidents
-- Removes the incidents of some runs.
DELETE FROM jivsd.incident WHERE run_id = ANY ($1::text[])

-- name: delete_published
-- Removes what some runs have published.
DELETE FROM jivsd.outbox WHERE run_id = ANY ($1)

-- name: delete_progress
-- Removes what the steps of some runs have said of how far they are.
DELETE FROM jivsd.progress WHERE run_id = ANY ($1)

-- name: empty_messages
-- Forgets what the messages of some runs said; their ids stay, so that a repeat is recognised.
UPDATE jivsd.inbox SET payload = NULL WHERE run_id = ANY ($1) AND payload IS NOT NULL

-- name: delete_attributes
-- Some runs have no attributes any more.
DELETE FROM jivsd.attribute WHERE run_id = ANY ($1)

-- name: delete_runs
-- Removes the rows of some runs.
DELETE FROM jivsd.run WHERE run_id = ANY ($1)

-- name: delete_messages
-- Removes the messages of some workflow ids that have no run any more.
DELETE FROM jivsd.inbox USING unnest($1::text[], $2::text[]) AS gone (workflow, workflow_id)
WHERE inbox.workflow = gone.workflow AND inbox.workflow_id = gone.workflow_id AND NOT EXISTS (
    SELECT FROM jivsd.run WHERE run.workflow_id = inbox.workflow_id AND run.workflow = inbox.workflow
)

-- name: forget_keys
-- Looks at the next idempotency keys in the order of their key, and forgets those that are old enough and have outlived
-- their runs. How many were looked at, how many were forgotten, and the last one that was looked at.
WITH page AS (
    SELECT workflow, key, at, run_id FROM jivsd.idempotency_key
    WHERE (workflow, key) > ($2, $3) ORDER BY workflow, key LIMIT $4
), gone AS (
    DELETE FROM jivsd.idempotency_key AS old USING page
    WHERE old.workflow = page.workflow AND old.key = page.key AND page.at < $1
        AND NOT EXISTS (SELECT FROM jivsd.run WHERE run.run_id = page.run_id)
    RETURNING 1
)
SELECT (SELECT count(*) FROM page), (SELECT count(*) FROM gone), last.workflow, last.key
FROM (SELECT workflow, key FROM page ORDER BY workflow DESC, key DESC LIMIT 1) AS last

-- name: check_runs
-- The next runs in the order of their ids.
SELECT run_id::text, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error
FROM jivsd.run WHERE run_id > $1 ORDER BY run.run_id LIMIT $2

-- name: check_events
-- The next events in the order of their key, with what a check needs.
SELECT event.run_id::text, seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM jivsd.event LEFT JOIN jivsd.payload ON payload.hash = event.payload_hash
WHERE (event.run_id, seq) > ($1, $2) ORDER BY event.run_id, seq LIMIT $3

-- name: check_orphans
-- Runs that have events and no row.
SELECT DISTINCT run_id::text FROM jivsd.event
WHERE NOT EXISTS (SELECT FROM jivsd.run WHERE run.run_id = event.run_id)

-- name: check_empty
-- Runs that have a row and no events.
SELECT run_id::text FROM jivsd.run WHERE NOT EXISTS (SELECT FROM jivsd.event WHERE event.run_id = run.run_id)

-- name: check_counts
-- Workflows and statuses whose counted runs are not as many as there are.
SELECT workflow, status
FROM (
    SELECT workflow, status, runs FROM jivsd.run_count WHERE status <> 'STARTED'
    UNION ALL SELECT workflow, status, -count(*) FROM jivsd.run GROUP BY workflow, status
) AS counted
GROUP BY workflow, status HAVING sum(runs) <> 0

-- name: check_hours
-- Workflows, statuses and hours whose counted runs are not as many as there are.
SELECT workflow, status, hour
FROM (
    SELECT hour, status, workflow, runs FROM jivsd.run_hour
    UNION ALL SELECT hour, status, workflow, runs FROM jivsd.run_count WHERE hour IS NOT NULL
    UNION ALL SELECT ended_at / 3600000000, status, workflow, -count(*) FROM jivsd.run
        WHERE ended_at IS NOT NULL GROUP BY 1, 2, 3
    UNION ALL SELECT created_at / 3600000000, 'STARTED', workflow, -count(*) FROM jivsd.run GROUP BY 1, 3
) AS counted
GROUP BY hour, status, workflow HAVING sum(runs) <> 0

-- name: check_payloads
-- Large payloads that are not used as often as they say.
SELECT hash FROM jivsd.payload
LEFT JOIN (
    SELECT payload_hash, count(*) AS times FROM jivsd.event WHERE payload_hash IS NOT NULL GROUP BY payload_hash
) AS used ON used.payload_hash = hash
WHERE uses <> coalesce(used.times, 0)

-- name: check_messages
-- Messages whose workflow id has no run.
SELECT message_id, workflow, workflow_id FROM jivsd.inbox
WHERE NOT EXISTS (SELECT FROM jivsd.run WHERE run.workflow_id = inbox.workflow_id AND run.workflow = inbox.workflow)

-- name: check_incidents
-- Incidents of runs that are not there.
SELECT incident_id, run_id FROM jivsd.incident
WHERE run_id IS NOT NULL AND NOT EXISTS (SELECT FROM jivsd.run WHERE run.run_id::text = incident.run_id)

-- name: check_tickets
-- Lock tickets of runs that are not open.
SELECT key, run_id::text FROM jivsd.lock_ticket
WHERE NOT EXISTS (SELECT FROM jivsd.run WHERE run.run_id = lock_ticket.run_id AND run.open)

-- name: check_attributes
-- Attributes of runs that are not there.
SELECT name, value FROM jivsd.attribute WHERE NOT EXISTS (SELECT FROM jivsd.run WHERE run.run_id = attribute.run_id)

-- name: table_locks
-- Who locks one of our tables against writing, or waits to; our own sessions do not.
SELECT relname::text AS relation, pg_locks.pid, usename::text AS "user", application_name AS application,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds, query
FROM pg_locks
JOIN pg_class ON pg_class.oid = pg_locks.relation
JOIN pg_namespace ON pg_namespace.oid = relnamespace
JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid
WHERE nspname = $1 AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    AND pg_locks.pid <> pg_backend_pid()
ORDER BY granted DESC, xact_start LIMIT 1

-- name: free_shards
-- Those of some shards that could be locked; those are free again when this has been said.
SELECT id FROM jivsd.shard WHERE id = ANY ($1) ORDER BY id FOR SHARE SKIP LOCKED

-- name: outsiders
-- Whose open transactions have locked or written rows of our tables, apart from our own sessions. A request that is
-- not committed yet holds up nobody.
SELECT pg_locks.pid, min(usename)::text AS "user", min(application_name) AS application,
       extract(epoch FROM clock_timestamp() - min(xact_start))::float8 AS seconds, min(query) AS query
FROM pg_locks
JOIN pg_class ON pg_class.oid = pg_locks.relation
JOIN pg_namespace ON pg_namespace.oid = relnamespace
JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid
WHERE nspname = $1 AND relkind = 'r' AND relname <> 'request' AND granted AND mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND application_name NOT LIKE 'jivsd %' AND pg_locks.pid <> pg_backend_pid()
GROUP BY pg_locks.pid ORDER BY min(xact_start) LIMIT $2

-- name: put_forwarded
-- Asks the owner of a shard for something.
INSERT INTO jivsd.forwarded (at, shard, taken, body) VALUES ($3, $1, false, $2) RETURNING number

-- name: take_forwarded
-- Takes over what is asked of the owner of some shards; what is older than a time goes.
WITH old AS (
    DELETE FROM jivsd.forwarded WHERE at < $2
), free AS (
    SELECT number FROM jivsd.forwarded WHERE shard = ANY ($1) AND NOT taken AND at >= $2 ORDER BY number
    FOR UPDATE SKIP LOCKED
), found AS (
    UPDATE jivsd.forwarded SET taken = true FROM free WHERE forwarded.number = free.number
    RETURNING forwarded.number, body
)
SELECT number, body FROM found ORDER BY number

-- name: answer_forwarded
-- Answers what was asked.
UPDATE jivsd.forwarded SET answer = $2 WHERE number = $1

-- name: take_answer
-- The answer to what was asked, which is done with then.
DELETE FROM jivsd.forwarded WHERE number = $1 AND answer IS NOT NULL RETURNING answer

-- name: withdraw_forwarded
-- Nobody waits for an answer any more; unless somebody has begun.
DELETE FROM jivsd.forwarded WHERE number = $1 AND NOT taken RETURNING number

-- name: new_requests
-- What was asked for in SQL and is not done, after a number, of some shards (null: of all).
SELECT id::text, number, at, tries, kind, workflow, workflow_id, name, key, "by", payload, options
FROM jivsd.request
WHERE state = 'NEW' AND number > $2 AND ($1::integer[] IS NULL OR shard = ANY ($1)) ORDER BY number LIMIT $3

-- name: delete_requests
-- Forgets requests that have been carried out.
DELETE FROM jivsd.request WHERE id = ANY ($1)

-- name: request_exists
-- A start that was asked for had been made before.
UPDATE jivsd.request SET state = 'EXISTING', run_id = $2 WHERE id = $1 AND state = 'NEW'

-- name: refuse_request
-- A request cannot be carried out. Nothing if that was found out before, by somebody else.
UPDATE jivsd.request SET state = 'REFUSED', tries = tries + 1, why = $3
WHERE id = $1 AND tries = $2 AND state = 'NEW' RETURNING tries

-- name: renew_request
-- A request that was refused is to be tried again.
UPDATE jivsd.request SET state = 'NEW' WHERE id = $1 AND state = 'REFUSED'

-- name: close_request
-- Somebody has seen that a request was refused.
UPDATE jivsd.request SET state = 'CLOSED' WHERE id = $1 AND state = 'REFUSED'

-- name: request
-- What has become of a request.
SELECT state, run_id::text, why FROM jivsd.request WHERE id = $1

-- name: forget_requests
-- Forgets requests from before a time of which nothing is to be done any more.
DELETE FROM jivsd.request WHERE state IN ('EXISTING', 'CLOSED') AND at < $1

-- name: lock_page
-- Lock keys that somebody holds, after one, or only one: the first places of their queues, each with its run, the node
-- that has the run's shard, and when it is recorded to have got the lock.
WITH page AS (
    SELECT DISTINCT key FROM jivsd.lock_ticket WHERE key > $1 AND ($2::text IS NULL OR key = $2) ORDER BY key LIMIT $3
), queue AS (
    SELECT key, ticket, run_id, path, since, granted, row_number() OVER (PARTITION BY key ORDER BY ticket) AS place,
           count(*) OVER (PARTITION BY key) AS places
    FROM jivsd.lock_ticket WHERE key IN (SELECT key FROM page)
)
SELECT queue.key, fence, places, ticket, queue.run_id::text, run.workflow, run.workflow_id, run.status, shard.node,
       queue.path, queue.since, CASE WHEN place = 1 AND granted THEN (
           SELECT max(at) FROM jivsd.event
           WHERE event.run_id = queue.run_id AND kind = 'LockGranted'
               AND event.path = CASE queue.path WHEN '' THEN '!lock' ELSE queue.path END
       ) END AS held_since
FROM queue
JOIN jivsd.lock ON lock.key = queue.key JOIN jivsd.run ON run.run_id = queue.run_id JOIN jivsd.shard ON shard.id = run.shard
WHERE place <= $4 ORDER BY queue.key, ticket

-- name: claims
-- The tickets of runs that have waited for a lock since a time while they had another ticket or somebody who waits for
-- them, and those of whoever holds the locks that they wait for: nobody else can be part of a circle.
WITH queue AS (
    SELECT key, ticket, run_id, path, since, ticket = min(ticket) OVER (PARTITION BY key) AS holds
    FROM jivsd.lock_ticket
), suspect AS (
    SELECT DISTINCT waiting.run_id FROM queue AS waiting JOIN jivsd.run ON run.run_id = waiting.run_id
    WHERE NOT waiting.holds AND waiting.since <= $1 AND (run.parent IS NOT NULL OR EXISTS (
        SELECT 1 FROM jivsd.lock_ticket AS other
        WHERE other.run_id = waiting.run_id AND other.path <> waiting.path
    ))
)
SELECT key, ticket, run_id::text, path, holds FROM queue
WHERE (run_id IN (SELECT run_id FROM suspect) AND (holds OR since <= $1))
    OR (holds AND key IN (SELECT key FROM queue WHERE NOT holds AND run_id IN (SELECT run_id FROM suspect)))
ORDER BY key, ticket

-- name: kin
-- The parents of some runs, their parents, and so forth.
WITH RECURSIVE line (run_id, parent, options) AS (
    SELECT run_id, parent, options FROM jivsd.run WHERE run_id = ANY ($1) AND parent IS NOT NULL
    UNION
    SELECT run.run_id, run.parent, run.options FROM line JOIN jivsd.run ON run.run_id = line.parent
    WHERE run.parent IS NOT NULL
)
SELECT run_id::text, parent::text, options FROM line
