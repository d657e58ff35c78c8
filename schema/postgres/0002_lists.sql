-- Lists with two times, and those of an attribute and a workflow, read only what they show, whatever runs there are.

-- When a run was created stands in the indexes by its end, too: whether that fits is seen without a look at the run.
DROP INDEX jivsd.run_ended;
DROP INDEX jivsd.run_workflow_ended;
CREATE INDEX run_ended ON jivsd.run (status, ended_at, number, created_at) WHERE ended_at IS NOT NULL;
CREATE INDEX run_workflow_ended ON jivsd.run (workflow, status, ended_at, number, created_at)
    WHERE ended_at IS NOT NULL;

-- The attribute of a run says which workflow it is of, so that those of others are passed over without a look at their
-- runs. Empty: of a run that had it before this was written.
ALTER TABLE jivsd.attribute ADD COLUMN run_workflow text COLLATE "C" NOT NULL DEFAULT '';

-- Writes a batch in one round trip: changes of runs, new runs with their keys, attributes, messages that were read, runs
-- that ended, events. Parameters are lists as before. A run is in each list of runs once at most. Changes come first: a
-- workflow id whose run ends here may start again here.
-- A run row that is missing or that somebody else holds undoes all (JV001): nothing here waits for it.
CREATE OR REPLACE FUNCTION jivsd.write_batch(
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
