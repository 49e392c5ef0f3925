-- Puts the operations of lapsed workers back and forgets those workers. A lost worker counts as a crash of each of its operations;
-- at the limit they fail. So do operations whose worker has no row at all (a claim that ran beside a sweep). An operation that another process
-- took meanwhile has another task by then and is left alone. No crash is counted of a worker that was draining, nor of one that was not
-- heard of since an outage of the database ended: it may have stopped in good order and had nobody to tell.
-- One row at least, without an operation when there was none.
-- $1 limit of workers, $2 seconds since an outage that the sweeper saw or null, $3 seconds of a lease
-- Model: sweep.
WITH lapsed AS (
    SELECT id, expires_at, draining OR coalesce(expires_at <= now() - make_interval(secs => $2::float8) + make_interval(secs => $3::float8), false) AS is_free
    FROM workers WHERE expires_at < now() ORDER BY expires_at LIMIT $1::integer FOR UPDATE SKIP LOCKED
), held AS (
    SELECT o.id, o.task_id, o.worker_id,
        CASE WHEN EXISTS (SELECT 1 FROM lapsed l WHERE l.id = o.worker_id AND l.is_free) THEN 0 ELSE 1 END AS crashes
    FROM operations o
    WHERE o.status = 'processing'
      AND (o.worker_id IN (SELECT l.id FROM lapsed l) OR NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = o.worker_id))
), back AS (
    UPDATE operations o SET
        status = CASE WHEN crashes = 1 AND o.failures + 1 >= o.max_attempts THEN 'failed' ELSE 'pending' END,
        completed_at = CASE WHEN crashes = 1 AND o.failures + 1 >= o.max_attempts THEN now() END,
        failures = o.failures + crashes, worker_id = NULL, current_file = NULL,
        not_before = coalesce((SELECT l.expires_at FROM lapsed l WHERE l.id = o.worker_id), now()), -- so that the wait for the next claim can be told
        error_class = CASE WHEN crashes = 1 THEN 'internal' END,
        error_message = CASE WHEN crashes = 1 THEN format('its worker died %s times, last because its lease lapsed', o.failures + 1)
            ELSE 'its worker was stopped' END,
        meta = jsonb_set(o.meta, '{attempts,-1}', coalesce(o.meta #> '{attempts,-1}', '{}') || jsonb_build_object(
            'ended', 'lease_lapsed', 'ended_at', to_iso(now()), 'error_class', CASE WHEN crashes = 1 THEN 'internal' END,
            'reason', CASE WHEN crashes = 1 THEN 'the worker''s lease lapsed' ELSE 'its worker was stopped' END))
    FROM held WHERE o.id = held.id AND o.task_id = held.task_id AND o.status = 'processing'
    RETURNING o.uuid, o.queue, o.status, o.task_id, o.type, o.attempt, o.user_id, o.collection_id, o.collection_uuid, o.error_message, held.worker_id, o.processed,
        extract(epoch FROM now() - (o.meta #>> '{attempts,-1,started_at}')::timestamptz)::float8 AS seconds
), gone AS (
    DELETE FROM workers w USING lapsed WHERE w.id = lapsed.id
)
SELECT b.*, l.workers, l.ids
FROM (SELECT count(*) AS workers, coalesce(array_agg(id), '{}') AS ids FROM lapsed) l LEFT JOIN back b ON true
