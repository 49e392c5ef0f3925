-- Puts the operations of lapsed workers back and forgets those workers. A lost worker counts as a crash of each of its operations;
-- at the limit they fail. So do operations whose worker has no row at all (a claim that ran beside a sweep). An operation that another process
-- took meanwhile has another task by then and is left alone. One row at least, without an operation when there was none. $1 limit of workers
-- Model: sweep.
WITH lapsed AS (
    SELECT id, expires_at FROM workers WHERE expires_at < now() ORDER BY expires_at LIMIT $1::integer FOR UPDATE SKIP LOCKED
), held AS (
    SELECT o.id, o.task_id, o.worker_id FROM operations o
    WHERE o.status = 'processing'
      AND (o.worker_id IN (SELECT l.id FROM lapsed l) OR NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = o.worker_id))
), back AS (
    UPDATE operations o SET
        status = CASE WHEN o.failures + 1 >= o.max_attempts THEN 'failed' ELSE 'pending' END,
        completed_at = CASE WHEN o.failures + 1 >= o.max_attempts THEN now() END,
        failures = o.failures + 1, worker_id = NULL, current_file = NULL,
        not_before = coalesce((SELECT l.expires_at FROM lapsed l WHERE l.id = o.worker_id), now()), -- so that the wait for the next claim can be told
        error_class = 'internal',
        error_message = format('its worker died %s times, last because its lease lapsed', o.failures + 1),
        meta = jsonb_set(o.meta, '{attempts,-1}', coalesce(o.meta #> '{attempts,-1}', '{}') || jsonb_build_object(
            'ended', 'lease_lapsed', 'ended_at', to_iso(now()), 'error_class', 'internal', 'reason', 'the worker''s lease lapsed'))
    FROM held WHERE o.id = held.id AND o.task_id = held.task_id AND o.status = 'processing'
    RETURNING o.uuid, o.queue, o.status, o.task_id, o.type, o.attempt, o.user_id, o.collection_id, o.collection_uuid, o.error_message, held.worker_id
), gone AS (
    DELETE FROM workers w USING lapsed WHERE w.id = lapsed.id
)
SELECT b.*, l.workers, l.ids
FROM (SELECT count(*) AS workers, coalesce(array_agg(id), '{}') AS ids FROM lapsed) l LEFT JOIN back b ON true
