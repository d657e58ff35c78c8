-- What must be zero after a trial, whatever was killed when. "-- name:" begins with what the count means: rows, runs or
-- entries that are lost, that were recorded twice, or that are wrong otherwise. main is the journal; source and target
-- are the migration's databases, world is what the steps did outside, notes is what the trial asked for and was
-- promised.

-- name: lost_starts
-- acknowledged starts without a run
SELECT count(*) FROM notes.asked LEFT JOIN main.run ON run.run_id = asked.run_id WHERE run.run_id IS NULL

-- name: lost_signals
-- acknowledged signals that no run has received
SELECT count(*) FROM notes.told WHERE NOT EXISTS (
    SELECT 1 FROM main.event
    WHERE event.run_id = told.run_id AND kind = 'Signal' AND CAST(payload AS TEXT) ->> 'message_id' = told.message_id
)

-- name: lost_events
-- gaps in the journals of runs
SELECT coalesce(sum(missing), 0) FROM (SELECT max(seq) - count(*) AS missing FROM main.event GROUP BY run_id)

-- name: lost_entries
-- entries that should be in the ledger
SELECT count(*) FROM (
    SELECT run_id, what, item FROM notes.expected EXCEPT SELECT run_id, what, item FROM main.showcase_ledger
)

-- name: lost_effects
-- steps recorded as done that have done nothing in the outside world
SELECT count(*) FROM main.event JOIN main.run ON run.run_id = event.run_id
WHERE kind = 'StepDone' AND workflow IN ('order', 'delivery', 'campaign')
    AND (path IN ('pack', 'pack!undo', 'charge', 'hand_over') OR path LIKE '%/send')
    AND NOT EXISTS (
        SELECT 1 FROM world.effect WHERE effect.run_id = event.run_id AND effect.path = event.path
    )

-- name: twice_starts
-- runs beyond the first of one acknowledged start
SELECT coalesce(sum(runs - 1), 0) FROM (
    SELECT count(*) AS runs
    FROM notes.asked JOIN main.run ON run.workflow = asked.workflow AND run.workflow_id = asked.workflow_id
    GROUP BY asked.workflow, asked.workflow_id
)

-- name: twice_outcomes
-- outcomes beyond the first of one step, timer or child run
SELECT coalesce(sum(outcomes - 1), 0) FROM (
    SELECT count(*) AS outcomes FROM main.event
    WHERE kind IN ('StepDone', 'StepFailed', 'StepCancelled', 'TimerFired', 'ChildEnded', 'Marker', 'Ended')
    GROUP BY run_id, path
)

-- name: twice_signals
-- signals received more than once
SELECT coalesce(sum(copies - 1), 0) FROM (
    SELECT count(*) AS copies FROM main.event WHERE kind = 'Signal'
    GROUP BY run_id, CAST(payload AS TEXT) ->> 'message_id'
)

-- name: twice_entries
-- ledger entries beyond the first of one step
SELECT coalesce(sum(copies - 1), 0) FROM (
    SELECT count(*) AS copies FROM main.showcase_ledger GROUP BY run_id, what, item
)

-- name: twice_effects
-- effects in the outside world beyond the first of one step
SELECT coalesce(sum(effects - 1), 0) FROM (SELECT count(*) AS effects FROM world.effect GROUP BY run_id, path)

-- name: twice_work
-- steps that were run again after they had been recorded as done
SELECT count(*) FROM world.call JOIN main.event ON event.run_id = call.run_id AND event.path = call.path
WHERE kind = 'StepDone' AND call.at > event.at

-- name: wrong_endings
-- runs that did not end as they should
SELECT count(*) FROM notes.asked JOIN main.run ON run.run_id = asked.run_id WHERE status <> expects

-- name: wrong_open
-- runs that have not ended
SELECT count(*) FROM main.run WHERE open

-- name: wrong_entries
-- ledger entries that nobody asked for
SELECT count(*) FROM (
    SELECT run_id, what, item FROM main.showcase_ledger EXCEPT SELECT run_id, what, item FROM notes.expected
)

-- name: wrong_incidents
-- incidents that nobody has resolved
SELECT count(*) FROM main.incident WHERE state = 'OPEN'

-- name: wrong_pages
-- damaged pages and indexes of the databases, all of them
SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'
