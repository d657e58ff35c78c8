-- Every statement that the embedded store runs. "-- name:" is how the code calls it; the comment says what it is for.

-- name: begin
-- Begins a batch: takes the write lock at once, so that nothing in it can fail for want of it.
BEGIN IMMEDIATE

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

-- name: epochs
-- The epoch of every shard, read inside the transaction that writes.
SELECT id, epoch FROM shard

-- name: insert_events
-- Appends the events of a batch. The writer repeats the row of values and fills up with rows of NULL, so that few
-- forms of the statement have to be prepared. A seq that is there already undoes the whole batch: so SQLite need not
-- keep copies of pages to undo this statement alone.
INSERT OR ROLLBACK INTO event (run_id, seq, kind, path, attempt, "by", at, checksum, payload_hash, payload)
SELECT * FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) WHERE column1 IS NOT NULL

-- name: insert_event
-- Appends one event; one that is there already undoes nothing else.
INSERT INTO event (run_id, seq, kind, path, attempt, "by", at, checksum, payload_hash, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: use_payload
-- Stores a large payload, or counts one more use of it.
INSERT INTO payload (hash, uses, body) VALUES (?, 1, ?)
ON CONFLICT (hash) DO UPDATE SET uses = uses + 1

-- name: events
-- A run's events after a seq, in order.
SELECT event.run_id, seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM event LEFT JOIN payload ON payload.hash = event.payload_hash
WHERE run_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3

-- name: event
-- One event.
SELECT event.run_id, seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM event LEFT JOIN payload ON payload.hash = event.payload_hash
WHERE run_id = ?1 AND seq = ?2

-- name: find_event
-- A run's event of a kind at a path.
SELECT event.run_id, seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM event LEFT JOIN payload ON payload.hash = event.payload_hash
WHERE run_id = ?1 AND kind = ?2 AND path = ?3 ORDER BY seq LIMIT 1

-- name: insert_run
-- A new run.
INSERT INTO run (run_id, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at,
                 ended_at, wake_at, options, attributes, input, output, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: known_runs
-- Which of these run ids exist; ?1 is a JSON array, as in those that follow.
SELECT run_id FROM run WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: addressed_runs
-- Those of some runs that are there: whether they are open, and what they are called.
SELECT run_id, open, workflow, workflow_id FROM run WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: seen_messages
-- Those of some messages that were delivered before: to which run, and when they were sent if they have not been read yet.
SELECT workflow, workflow_id, message_id, run_id, CASE state WHEN 'UNREAD' THEN at END
FROM json_each(?1) AS wanted
CROSS JOIN inbox ON workflow = wanted.value ->> 0 AND workflow_id = wanted.value ->> 1
    AND message_id = wanted.value ->> 2

-- name: open_ids
-- Which of these pairs of a workflow and a workflow id have an open run, and which.
SELECT workflow, workflow_id, run_id
FROM json_each(?1) AS wanted
CROSS JOIN run ON workflow = wanted.value ->> 0 AND workflow_id = wanted.value ->> 1 AND open

-- name: known_keys
-- Which of these pairs of a workflow and an idempotency key are known.
SELECT workflow, idempotency_key.key
FROM json_each(?1) AS wanted
CROSS JOIN idempotency_key ON workflow = wanted.value ->> 0 AND idempotency_key.key = wanted.value ->> 1

-- name: waiting_runs
-- Which of these runs hold or wait for a lock.
SELECT run_id FROM lock_ticket WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: leave_all_messages
-- These runs have ended: see leave_messages.
UPDATE inbox SET state = 'LEFT' WHERE state = 'UNREAD' AND run_id IN (SELECT value FROM json_each(?1))

-- name: change_run
-- New values for a run; NULL keeps a column. parked and wake_at belong to the status: a new status brings its own.
UPDATE run SET
    status = coalesce(?2, status),
    paused = coalesce(?3, paused),
    output = coalesce(?4, output),
    error = coalesce(?5, error),
    code_hash = coalesce(?6, code_hash),
    started_at = coalesce(?7, started_at),
    ended_at = coalesce(?8, ended_at),
    wake_at = CASE WHEN ?2 IS NULL THEN coalesce(?9, wake_at) ELSE ?9 END,
    attributes = coalesce(?10, attributes),
    parked = CASE WHEN ?2 IS NULL THEN parked ELSE ?11 END
WHERE run_id = ?1

-- name: run
-- One run.
SELECT run_id, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error, number
FROM run WHERE run_id = ?1

-- name: addressed_run
-- Whether a run is there and open, and what it is called.
SELECT open, workflow, workflow_id FROM run WHERE run_id = ?1

-- name: open_run
-- The open run of a workflow id.
SELECT run_id FROM run WHERE workflow = ?1 AND workflow_id = ?2 AND open

-- name: chain_end
-- The open run in which one that was continued as new goes on.
SELECT run.run_id FROM run AS earlier
JOIN run ON run.workflow = earlier.workflow AND run.workflow_id = earlier.workflow_id AND run.open
WHERE earlier.run_id = ?1 AND earlier.status = 'CONTINUED'
    AND run.options ->> 'chain' = coalesce(earlier.options ->> 'chain', earlier.run_id)

-- name: newest_in_chain
-- The newest run in which one that was continued as new goes on, open or not.
SELECT run.run_id FROM run AS earlier
JOIN run ON run.workflow = earlier.workflow AND run.workflow_id = earlier.workflow_id
WHERE earlier.run_id = ?1 AND earlier.status = 'CONTINUED'
    AND run.options ->> 'chain' = coalesce(earlier.options ->> 'chain', earlier.run_id)
ORDER BY run.number DESC LIMIT 1

-- name: newest_run
-- The newest run of a workflow id, open or not.
SELECT run_id FROM run WHERE workflow = ?1 AND workflow_id = ?2 ORDER BY created_at DESC, number DESC LIMIT 1

-- name: open_runs
-- Open runs that are not parked by run id, for recovery.
SELECT run_id, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error, number
FROM run WHERE open AND NOT parked AND run_id > ?1 ORDER BY run_id LIMIT ?2

-- name: wakes
-- When parked runs have to be brought back because time has come, earliest first.
SELECT wake_at, run_id FROM run
WHERE parked AND wake_at IS NOT NULL AND (wake_at, run_id) > (?1, ?2) ORDER BY wake_at, run_id LIMIT ?3

-- name: called_runs
-- The parked runs that have something to do at once: an unread message, or it is their turn for a lock.
SELECT run.run_id FROM inbox JOIN run ON run.run_id = inbox.run_id WHERE inbox.state = 'UNREAD' AND run.parked
UNION
SELECT run.run_id FROM (SELECT run_id, granted, min(ticket) FROM lock_ticket GROUP BY key) AS holder
JOIN run ON run.run_id = holder.run_id WHERE run.parked AND NOT holder.granted
ORDER BY 1

-- name: recorded_runs
-- Some runs, each as a JSON array of its columns: all in one row, because every row read gives up the interpreter's
-- lock. The parameter is a JSON array of run ids.
SELECT json_group_array(json_array(run_id, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at,
                                   started_at, ended_at, wake_at, options, attributes, input, output, error))
FROM json_each(?1) AS wanted JOIN run ON run.run_id = wanted.value

-- name: recorded_events
-- The events of some runs, each as a JSON array of its columns, in order for each run; all in one row.
SELECT json_group_array(json_array(event.run_id, seq, kind, event.path,
                                   CAST(coalesce(event.payload, payload.body) AS TEXT),
                                   at, attempt, "by", checksum) ORDER BY event.run_id, seq)
FROM json_each(?1) AS wanted CROSS JOIN event ON event.run_id = wanted.value
LEFT JOIN payload ON payload.hash = event.payload_hash

-- name: recorded_messages
-- The unread messages of some runs, each as a JSON array of its columns, in the order in which they came; in one row.
SELECT json_group_array(json_array(workflow, workflow_id, message_id, kind, inbox.path, CAST(payload AS TEXT), at, "by",
                                   run_id) ORDER BY number)
FROM json_each(?1) AS wanted CROSS JOIN inbox ON inbox.run_id = wanted.value
WHERE state = 'UNREAD'

-- name: recorded_progress
-- What the steps of some runs have said of how far they are, each as a JSON array of its columns; in one row.
SELECT json_group_array(json_array(run_id, progress.path, attempt, at, details, done, total) ORDER BY progress.path)
FROM json_each(?1) AS wanted CROSS JOIN progress ON progress.run_id = wanted.value

-- name: list_runs
-- A page of runs, newest first; the reader puts its conditions in the place of "true", and what leads to the runs (an
-- index or the table of attributes) and its order in the place of the index, time and number here.
SELECT run_id, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error, created_at AS time, number AS place
FROM run INDEXED BY run_status WHERE true ORDER BY time DESC, place DESC LIMIT :limit

-- name: count_attribute
-- How many runs that were created between two times have an attribute, as far as one has to know.
SELECT count(*)
FROM (
    SELECT 1 FROM attribute
    WHERE name = :name AND value = :value AND run_created_at >= :after AND run_created_at < :before LIMIT :limit
)

-- name: put_attribute
-- A run has an attribute.
INSERT INTO attribute (name, value, run_created_at, run_number, run_workflow)
SELECT ?2, ?3, created_at, number, workflow FROM run WHERE run_id = ?1

-- name: delete_attributes
-- Some runs have no attributes any more.
DELETE FROM attribute
WHERE run_number IN (SELECT number FROM run WHERE run_id IN (SELECT value FROM json_each(?1)))

-- name: count_runs
-- How many runs have each status.
SELECT status, sum(runs) FROM run_count WHERE runs > 0 GROUP BY status

-- name: count_paused
-- How many runs are paused.
SELECT count(*) FROM run INDEXED BY run_paused WHERE paused

-- name: count_unread
-- How many messages no run has read yet.
SELECT count(*) FROM inbox INDEXED BY inbox_unread WHERE state = 'UNREAD'

-- name: statistics_counts
-- How many runs of each workflow (or one) are in each status, and of those how many were started and have ended from a
-- time to the begin of an hour. Since then: how many have ended; and, as STARTED, how many were started.
WITH since AS MATERIALIZED (
    SELECT workflow, status, sum(runs) AS runs FROM run_hour
    WHERE hour >= :whole / 3600000000 AND (:workflow IS NULL OR workflow = :workflow)
    GROUP BY workflow, status
)
SELECT
    counted.workflow, counted.status, counted.runs,
    (
        SELECT count(*) FROM run INDEXED BY run_workflow_status
        WHERE run.workflow = counted.workflow AND run.status = counted.status
            AND created_at >= :since AND created_at < :whole
    ),
    (
        SELECT count(*) FROM run INDEXED BY run_workflow_ended
        WHERE run.workflow = counted.workflow AND run.status = counted.status
            AND ended_at >= :since AND ended_at < :whole AND ended_at IS NOT NULL
    ) + coalesce((
        SELECT runs FROM since WHERE since.workflow = counted.workflow AND since.status = counted.status
    ), 0)
FROM run_count AS counted
WHERE counted.runs > 0 AND (:workflow IS NULL OR workflow = :workflow)
UNION ALL
SELECT workflow, status, 0, runs, 0 FROM since WHERE status = 'STARTED'

-- name: statistics_endings
-- When the runs of a workflow in a status ended that did so last, and how long they had been there.
SELECT ended_at, ended_at - created_at, number
FROM run INDEXED BY run_workflow_ended
WHERE workflow = :workflow AND status = :status AND ended_at >= :since AND ended_at IS NOT NULL
ORDER BY ended_at DESC LIMIT :limit

-- name: statistics_incidents
-- How many incidents of each workflow (or one) were opened since a time, and how many are open; of those with any.
SELECT workflow, sum(at >= :since), sum(state = 'OPEN')
FROM (
    SELECT workflow, state, at FROM incident INDEXED BY incident_time
    WHERE workflow IS NOT NULL AND state = 'OPEN'
    UNION ALL
    SELECT workflow, state, at FROM incident INDEXED BY incident_time
    WHERE workflow IS NOT NULL AND state = 'RESOLVED' AND at >= :since
)
WHERE :workflow IS NULL OR workflow = :workflow
GROUP BY workflow

-- name: failed_attempts
-- How many attempts of steps failed among the first events of a run.
SELECT count(*)
FROM (SELECT kind FROM event WHERE run_id = (SELECT run_id FROM run WHERE number = ?1) LIMIT ?2)
WHERE kind = 'AttemptFailed'

-- name: idempotency_key
-- The start that an idempotency key belongs to.
SELECT input_hash, run_id FROM idempotency_key WHERE workflow = ?1 AND key = ?2

-- name: insert_key
-- Remembers which start an idempotency key belongs to.
INSERT INTO idempotency_key (workflow, key, input_hash, run_id, at) VALUES (?, ?, ?, ?, ?)

-- name: lock_holder
-- The run that holds a lock key, and where in its code: the one with the lowest ticket.
SELECT run_id, path FROM lock_ticket WHERE key = ?1 ORDER BY ticket LIMIT 1

-- name: next_ticket
-- Counts a lock key's tickets; the first makes the key.
INSERT INTO lock (key, last_ticket, fence) VALUES (?1, 1, 1)
ON CONFLICT (key) DO UPDATE SET last_ticket = last_ticket + 1
RETURNING last_ticket

-- name: insert_ticket
-- Puts a run into the queue of a lock key.
INSERT INTO lock_ticket (key, ticket, run_id, path, since, granted) VALUES (?, ?, ?, ?, ?, 0)

-- name: grant_ticket
-- It is recorded that a run has the lock for which it stood in the queue.
UPDATE lock_ticket SET granted = 1 WHERE run_id = ?1 AND path = ?2

-- name: tickets
-- The tickets of a run, and whether each is the lowest of its key.
SELECT path, key, ticket,
       NOT EXISTS (SELECT 1 FROM lock_ticket AS other WHERE other.key = mine.key AND other.ticket < mine.ticket)
FROM lock_ticket AS mine WHERE run_id = ?1

-- name: ticket
-- The same for the ticket that a run has for a path in its code.
SELECT path, key, ticket,
       NOT EXISTS (SELECT 1 FROM lock_ticket AS other WHERE other.key = mine.key AND other.ticket < mine.ticket)
FROM lock_ticket AS mine WHERE run_id = ?1 AND path = ?2

-- name: hand_on_ticket
-- The run is continued as new: the run that goes on for it has its lock from the beginning.
UPDATE lock_ticket SET run_id = ?2, granted = 0 WHERE run_id = ?1 AND path = '' AND key = ?3

-- name: delete_ticket
-- Takes a run out of the queue of a lock key.
DELETE FROM lock_ticket WHERE key = ?1 AND ticket = ?2

-- name: raise_fence
-- The next fence number of a lock key: its holder has changed or was taken over.
UPDATE lock SET fence = fence + 1 WHERE key = ?1 RETURNING fence

-- name: lock_queue
-- Who holds and who waits for one lock key, and whether it is recorded that it has it: so many from the first on.
SELECT lock_ticket.key, ticket, run_id, fence, since, path, granted
FROM lock_ticket JOIN lock ON lock.key = lock_ticket.key
WHERE lock_ticket.key = ?1 ORDER BY ticket LIMIT ?2

-- name: lock_queues
-- The same for all lock keys: so many of each; -1: all.
SELECT key, ticket, run_id, fence, since, path, granted
FROM (SELECT lock_ticket.key, ticket, run_id, fence, since, path, granted,
             row_number() OVER (PARTITION BY lock_ticket.key ORDER BY ticket) AS place
      FROM lock_ticket JOIN lock ON lock.key = lock_ticket.key)
WHERE ?1 < 0 OR place <= ?1 ORDER BY key, ticket

-- name: seen_message
-- The run that a message id was delivered to before, what it was, and when it was sent if it has not been read yet.
SELECT run_id, kind, CASE state WHEN 'UNREAD' THEN at END FROM inbox WHERE workflow = ?1 AND workflow_id = ?2 AND message_id = ?3

-- name: insert_message
-- Puts a message into the inbox; one that was seen before is ignored.
INSERT INTO inbox (workflow, workflow_id, message_id, run_id, kind, path, payload, at, "by", state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'UNREAD')
ON CONFLICT (workflow, workflow_id, message_id) DO NOTHING

-- name: insert_messages
-- Puts messages into the inbox that are known to be new; see insert_events.
INSERT OR ROLLBACK INTO inbox (workflow, workflow_id, message_id, run_id, kind, path, payload, at, "by", state)
SELECT *, 'UNREAD' FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)) WHERE column1 IS NOT NULL

-- name: consume_messages
-- Messages have become events of their runs: their ids stay, their payloads are in the events. The parameter is a JSON
-- array of run ids with message ids.
UPDATE inbox SET state = 'READ', payload = NULL
WHERE number IN (
    SELECT inbox.number FROM json_each(?1) AS wanted
    CROSS JOIN run ON run.run_id = wanted.value ->> 0
    JOIN inbox ON inbox.workflow = run.workflow AND inbox.workflow_id = run.workflow_id
        AND inbox.message_id = wanted.value ->> 1
)

-- name: leave_messages
-- The run has ended: what it did not read stays, read by nobody.
UPDATE inbox SET state = 'LEFT' WHERE run_id = ?1 AND state = 'UNREAD'

-- name: hand_on_messages
-- The run is continued as new: what it did not read is for the run that goes on for it, but for what children said.
UPDATE inbox SET run_id = ?2 WHERE run_id = ?1 AND state = 'UNREAD' AND kind <> 'ChildEnded'

-- name: messages
-- A run's unread messages, in the order in which they came.
SELECT workflow, workflow_id, message_id, kind, path, payload, at, "by", run_id
FROM inbox WHERE run_id = ?1 AND state = 'UNREAD' ORDER BY number

-- name: publish
-- An event for the outside.
INSERT INTO outbox (run_id, path, workflow, workflow_id, topic, payload, at) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: outbox
-- Events for the outside after a number, in order.
SELECT number, run_id, path, workflow, workflow_id, topic, payload, at
FROM outbox WHERE number > ?1 AND (?2 IS NULL OR topic = ?2) ORDER BY number LIMIT ?3

-- name: insert_feed
-- Says what a batch has appended.
INSERT INTO feed (at, events, keys) VALUES (?, ?, ?)

-- name: feed
-- What was appended after a place in the feed, in order.
SELECT number, keys FROM (
    SELECT number, keys, sum(events) OVER (ORDER BY number) - events AS before FROM (
        SELECT number, keys, events FROM feed WHERE number > ?1 AND events > 0 ORDER BY number LIMIT ?2
    )
)
WHERE before < ?2 ORDER BY number

-- name: feed_state
-- The last number of the feed, and up to where it was removed.
SELECT coalesce((SELECT max(number) FROM feed), 0), coalesce(first.number, 0), coalesce(first.at, 0)
FROM (SELECT 1) LEFT JOIN (SELECT number, at, events FROM feed ORDER BY number LIMIT 1) AS first ON first.events = 0

-- name: feed_events
-- Events as those see them who follow them all: ?1 is a JSON array of run ids and seqs. What was removed meanwhile is
-- left out.
SELECT wanted.key + 1, event.at, event.kind, event.path, event.attempt, event."by",
       run.workflow, run.workflow_id, run.status
FROM json_each(?1) AS wanted
CROSS JOIN event ON event.run_id = wanted.value ->> 0 AND event.seq = wanted.value ->> 1
CROSS JOIN run ON run.run_id = event.run_id

-- name: oldest_feed
-- The oldest rows of the feed.
SELECT number, at, events FROM feed ORDER BY number LIMIT ?1

-- name: mark_feed
-- Leaves a mark where the feed begins after its oldest rows were removed.
UPDATE feed SET events = 0, keys = x'' WHERE number = ?1

-- name: trim_feed
-- Removes the rows of the feed before a number.
DELETE FROM feed WHERE number < ?1

-- name: clear_outbox
-- Forgets some of the oldest events for the outside.
DELETE FROM outbox
WHERE number IN (SELECT number FROM outbox WHERE at < ?1 ORDER BY at LIMIT ?2)
RETURNING number

-- name: put_progress
-- What a step has said last of how far it is.
INSERT INTO progress (run_id, path, attempt, at, details, done, total)
VALUES (:run_id, :path, :attempt, :at, :details, :done, :total)
ON CONFLICT (run_id, path) DO UPDATE
SET attempt = excluded.attempt, at = excluded.at, details = excluded.details, done = excluded.done,
    total = excluded.total

-- name: forget_progress
-- A step has settled.
DELETE FROM progress WHERE run_id = :run_id AND path = :path

-- name: progress
-- What the steps of a run have said last of how far they are.
SELECT path, attempt, at, details, done, total FROM progress WHERE run_id = ?1 ORDER BY path

-- name: put_incident
-- An incident, or what has become of it.
INSERT INTO incident (incident_id, kind, message, at, run_id, workflow, path, details, state, resolution, resolved_by,
                      resolved_why, resolved_at, history, acknowledged, fingerprint)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
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
FROM incident WHERE true ORDER BY number DESC LIMIT :limit

-- name: group_incidents
-- Incidents by fingerprint, those that were seen last first; the reader puts its conditions in the place of "true".
SELECT counted.fingerprint, kind, message, incident_id, times, first_at, last_at, workflow, path, runs, counted.seen
FROM (
    SELECT fingerprint, count(*) AS times, min(at) AS first_at, max(at) AS last_at, count(DISTINCT run_id) AS runs,
           sum(acknowledged) AS seen, max(number) AS newest
    FROM incident WHERE true GROUP BY fingerprint ORDER BY last_at DESC LIMIT :limit
) AS counted
JOIN incident ON incident.number = counted.newest
ORDER BY last_at DESC

-- name: count_incidents
-- How many incidents are open.
SELECT count(*) FROM incident WHERE state = 'OPEN'

-- name: put_plugin
-- Keeps the source of a plugin.
INSERT INTO plugin_code (code_hash, name, files, at) VALUES (?, ?, ?, ?) ON CONFLICT (code_hash) DO NOTHING

-- name: plugin
-- The source of a plugin.
SELECT code_hash, name, files, at FROM plugin_code WHERE code_hash = ?1

-- name: plugin_migrations
-- The migrations of a plugin that have been applied, in order.
SELECT number, hash FROM plugin_migration WHERE plugin = ?1 ORDER BY number

-- name: put_plugin_migration
-- A migration of a plugin has been applied.
INSERT INTO plugin_migration (plugin, number, name, hash) VALUES (?, ?, ?, ?)

-- name: claim_shards
-- A node takes all shards, under an epoch that is above all that were.
UPDATE shard SET epoch = (SELECT max(epoch) + 1 FROM shard), node = ?1 RETURNING epoch

-- name: raise_epoch
-- A node raises the epoch of a shard that it still owns under the epoch it knows.
UPDATE shard SET epoch = epoch + 1 WHERE id = ?1 AND node = ?2 AND epoch = ?3 RETURNING epoch

-- name: meta
-- What the database says about itself.
SELECT value FROM meta WHERE name = ?1

-- name: put_meta
-- Says something about the database.
INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: probe
-- Writes something small, to see whether that works.
INSERT INTO meta (name, value) VALUES ('probe', '1') ON CONFLICT (name) DO UPDATE SET value = value + 1

-- name: insert_shard
-- A shard, when the database is made; nobody owns it yet.
INSERT INTO shard (id, epoch, node) VALUES (?1, 0, '')

-- name: count_pairs
-- Which workflows have runs in which statuses.
SELECT workflow, status FROM run_count WHERE runs > 0

-- name: list_prunable
-- Ended runs, oldest first, apart from those whose parent or whose child is open: a parent that comes back would start
-- its child again, and a child's end would reach nobody. The reader puts in conditions and index as in list_runs.
SELECT run_id, created_at AS time, number AS place
FROM run INDEXED BY run_status
WHERE true
    AND NOT EXISTS (SELECT 1 FROM run AS elder WHERE elder.run_id = run.parent AND elder.open)
    AND NOT EXISTS (
        SELECT 1 FROM run AS child WHERE child.parent = run.run_id AND child.status IN (
            'PENDING', 'RUNNING', 'WAITING', 'PAUSED', 'BLOCKED', 'COMPENSATING', 'COMPENSATION_BLOCKED'
        )
    )
ORDER BY time, place LIMIT :limit

-- name: event_counts
-- How many events some runs have.
SELECT value, (SELECT count(*) FROM event WHERE event.run_id = value) FROM json_each(?1)

-- name: removable
-- Those of some runs that have ended and hold nobody up (see list_prunable), and what they are called: as one row, for
-- every row that is read is one more wait for the interpreter's lock inside a transaction.
SELECT json_group_array(run_id), json_group_array(json_array(workflow, workflow_id))
FROM json_each(?1) CROSS JOIN run ON run_id = value
WHERE NOT open
    AND NOT EXISTS (SELECT 1 FROM run AS elder WHERE elder.run_id = run.parent AND elder.open)
    AND NOT EXISTS (
        SELECT 1 FROM run AS child WHERE child.parent = run.run_id AND child.status IN (
            'PENDING', 'RUNNING', 'WAITING', 'PAUSED', 'BLOCKED', 'COMPENSATING', 'COMPENSATION_BLOCKED'
        )
    )

-- name: release_payloads
-- The events of some runs no longer use their large payloads.
UPDATE payload SET uses = uses - used.times
FROM (SELECT payload_hash, count(*) AS times FROM event
      WHERE run_id IN (SELECT value FROM json_each(?1)) AND payload_hash IS NOT NULL GROUP BY payload_hash) AS used
WHERE hash = used.payload_hash

-- name: delete_payloads
-- Removes the large payloads of some runs that no event uses any more.
DELETE FROM payload
WHERE uses <= 0 AND hash IN (
    SELECT payload_hash FROM event
    WHERE run_id IN (SELECT value FROM json_each(?1)) AND payload_hash IS NOT NULL
)

-- name: delete_events
-- Removes the journals of some runs.
DELETE FROM event WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: delete_incidents
-- Removes the incidents of some runs.
DELETE FROM incident WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: delete_published
-- Removes what some runs have published.
DELETE FROM outbox WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: delete_progress
-- Removes what the steps of some runs have said of how far they are.
DELETE FROM progress WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: empty_messages
-- Forgets what the messages of some runs said; their ids stay, so that a repeat is recognised.
UPDATE inbox SET payload = NULL WHERE run_id IN (SELECT value FROM json_each(?1)) AND payload IS NOT NULL

-- name: delete_runs
-- Removes the rows of some runs.
DELETE FROM run WHERE run_id IN (SELECT value FROM json_each(?1))

-- name: delete_messages
-- Removes the messages of some workflow ids, given as pairs of workflow and workflow id, that have no run any more.
DELETE FROM inbox WHERE number IN (
    SELECT inbox.number FROM json_each(?1) AS gone
    CROSS JOIN inbox ON inbox.workflow = gone.value ->> 0 AND inbox.workflow_id = gone.value ->> 1
    WHERE NOT EXISTS (
        SELECT 1 FROM run WHERE run.workflow_id = inbox.workflow_id AND run.workflow = inbox.workflow
    )
)

-- name: key_page
-- The next idempotency keys in the order of their key, and whether each has outlived its run.
SELECT workflow, key, at, NOT EXISTS (SELECT 1 FROM run WHERE run.run_id = idempotency_key.run_id)
FROM idempotency_key WHERE (workflow, key) > (?1, ?2) ORDER BY workflow, key LIMIT ?3

-- name: delete_keys
-- Forgets some idempotency keys, given as pairs of workflow and key, if they are old enough and have outlived their runs.
DELETE FROM idempotency_key
WHERE (workflow, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1)) AND at < ?2
    AND NOT EXISTS (SELECT 1 FROM run WHERE run.run_id = idempotency_key.run_id)

-- name: shrink
-- Gives some free pages at the end of the file back to the disk.
PRAGMA incremental_vacuum(256)

-- name: trim
-- Lets go of pages of the database that are kept in memory and are not in use.
PRAGMA shrink_memory

-- name: free_pages
-- How many pages hold nothing.
PRAGMA freelist_count

-- name: check_events
-- The next events in the order of their key, with what a check needs.
SELECT event.run_id, seq, kind, path, coalesce(event.payload, payload.body), at, attempt, "by", checksum
FROM event LEFT JOIN payload ON payload.hash = event.payload_hash
WHERE (event.run_id, seq) > (?1, ?2) ORDER BY event.run_id, seq LIMIT ?3

-- name: check_runs
-- The next runs in the order of their number.
SELECT run_id, workflow, workflow_id, code_hash, shard, status, paused, parked, created_at, started_at, ended_at,
       wake_at, options, attributes, input, output, error, number
FROM run WHERE number > ?1 ORDER BY number LIMIT ?2

-- name: check_orphans
-- Runs that have events and no row.
SELECT DISTINCT run_id FROM event WHERE NOT EXISTS (SELECT 1 FROM run WHERE run.run_id = event.run_id)

-- name: check_empty
-- Runs that have a row and no events.
SELECT run_id FROM run WHERE NOT EXISTS (SELECT 1 FROM event WHERE event.run_id = run.run_id)

-- name: check_counts
-- Workflows and statuses whose counted runs are not as many as there are.
SELECT coalesce(counted.workflow, found.workflow), coalesce(counted.status, found.status)
FROM run_count AS counted
FULL JOIN (SELECT workflow, status, count(*) AS runs FROM run INDEXED BY run_workflow_status GROUP BY workflow, status)
    AS found ON found.workflow = counted.workflow AND found.status = counted.status
WHERE coalesce(counted.runs, 0) <> coalesce(found.runs, 0)

-- name: check_hours
-- Workflows, statuses and hours whose counted runs are not as many as there are.
SELECT workflow, status, hour
FROM (
    SELECT hour, status, workflow, runs FROM run_hour
    UNION ALL SELECT ended_at / 3600000000, status, workflow, -count(*) FROM run
        WHERE ended_at IS NOT NULL GROUP BY 1, 2, 3
    UNION ALL SELECT created_at / 3600000000, 'STARTED', workflow, -count(*) FROM run GROUP BY 1, 3
)
GROUP BY hour, status, workflow HAVING sum(runs) <> 0

-- name: check_payloads
-- Large payloads that are not used as often as they say.
SELECT hash FROM payload
LEFT JOIN (SELECT payload_hash, count(*) AS times FROM event WHERE payload_hash IS NOT NULL GROUP BY payload_hash)
    AS used ON used.payload_hash = hash
WHERE uses <> coalesce(used.times, 0)

-- name: check_messages
-- Messages whose workflow id has no run.
SELECT message_id, workflow, workflow_id FROM inbox
WHERE NOT EXISTS (SELECT 1 FROM run WHERE run.workflow_id = inbox.workflow_id AND run.workflow = inbox.workflow)

-- name: check_incidents
-- Incidents of runs that are not there.
SELECT incident_id, run_id FROM incident
WHERE run_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM run WHERE run.run_id = incident.run_id)

-- name: check_tickets
-- Lock tickets of runs that are not open.
SELECT key, run_id FROM lock_ticket
WHERE NOT EXISTS (SELECT 1 FROM run WHERE run.run_id = lock_ticket.run_id AND run.open)

-- name: check_attributes
-- Attributes of runs that are not there.
SELECT name, value FROM attribute WHERE NOT EXISTS (SELECT 1 FROM run WHERE run.number = run_number)

-- name: new_requests
-- What was asked for from outside and is not done, after a number, of some shards (null: of all).
SELECT id, number, at, tries, kind, workflow, workflow_id, name, key, "by", payload, options
FROM request
WHERE state = 'NEW' AND number > ?2 AND (?1 IS NULL OR shard IN (SELECT value FROM json_each(?1)))
ORDER BY number LIMIT ?3

-- name: delete_requests
-- Forgets requests that have been carried out.
DELETE FROM request WHERE id IN (SELECT value FROM json_each(?1))

-- name: request_exists
-- A start that was asked for had been made before.
UPDATE request SET state = 'EXISTING', run_id = ?2 WHERE id = ?1 AND state = 'NEW'

-- name: refuse_request
-- A request cannot be carried out. Nothing if that was found out before.
UPDATE request SET state = 'REFUSED', tries = tries + 1, why = ?3 WHERE id = ?1 AND tries = ?2 AND state = 'NEW'
RETURNING tries

-- name: renew_request
-- A request that was refused is to be tried again.
UPDATE request SET state = 'NEW' WHERE id = ?1 AND state = 'REFUSED'

-- name: close_request
-- Somebody has seen that a request was refused.
UPDATE request SET state = 'CLOSED' WHERE id = ?1 AND state = 'REFUSED'

-- name: request
-- What has become of a request.
SELECT state, run_id, why FROM request WHERE id = ?1

-- name: forget_requests
-- Forgets requests from before a time of which nothing is to be done any more.
DELETE FROM request WHERE state IN ('EXISTING', 'CLOSED') AND at < ?1

-- name: lock_page
-- Lock keys that somebody holds, after one, or only one: the first places of their queues, each with its run, the node
-- that has the run's shard, and when it is recorded to have got the lock.
WITH page AS (
    SELECT DISTINCT key FROM lock_ticket WHERE key > ?1 AND (?2 IS NULL OR key = ?2) ORDER BY key LIMIT ?3
), queue AS (
    SELECT key, ticket, run_id, path, since, granted, row_number() OVER (PARTITION BY key ORDER BY ticket) AS place,
           count(*) OVER (PARTITION BY key) AS places
    FROM lock_ticket WHERE key IN (SELECT key FROM page)
)
SELECT queue.key, fence, places, ticket, queue.run_id, run.workflow, run.workflow_id, run.status, shard.node,
       queue.path, queue.since, CASE WHEN place = 1 AND granted THEN (
           SELECT max(at) FROM event
           WHERE event.run_id = queue.run_id AND kind = 'LockGranted'
               AND event.path = CASE queue.path WHEN '' THEN '!lock' ELSE queue.path END
       ) END AS held_since
FROM queue
JOIN lock ON lock.key = queue.key JOIN run ON run.run_id = queue.run_id JOIN shard ON shard.id = run.shard
WHERE place <= ?4 ORDER BY queue.key, ticket

-- name: claims
-- The tickets of runs that have waited for a lock since a time while they had another ticket or somebody who waits for
-- them, and those of whoever holds the locks that they wait for: nobody else can be part of a circle.
WITH queue AS (
    SELECT key, ticket, run_id, path, since, ticket = min(ticket) OVER (PARTITION BY key) AS holds
    FROM lock_ticket
), suspect AS (
    SELECT DISTINCT waiting.run_id FROM queue AS waiting JOIN run ON run.run_id = waiting.run_id
    WHERE NOT waiting.holds AND waiting.since <= ?1 AND (run.parent IS NOT NULL OR EXISTS (
        SELECT 1 FROM lock_ticket AS other
        WHERE other.run_id = waiting.run_id AND other.path <> waiting.path
    ))
)
SELECT key, ticket, run_id, path, holds FROM queue
WHERE (run_id IN (SELECT run_id FROM suspect) AND (holds OR since <= ?1))
    OR (holds AND key IN (SELECT key FROM queue WHERE NOT holds AND run_id IN (SELECT run_id FROM suspect)))
ORDER BY key, ticket

-- name: kin
-- The parents of some runs, their parents, and so forth.
WITH RECURSIVE line (run_id, parent, options) AS (
    SELECT run_id, parent, options FROM run WHERE run_id IN (SELECT value FROM json_each(?1)) AND parent IS NOT NULL
    UNION
    SELECT run.run_id, run.parent, run.options FROM line JOIN run ON run.run_id = line.parent
    WHERE run.parent IS NOT NULL
)
SELECT run_id, parent, options FROM line
