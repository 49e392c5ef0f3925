-- Puts the operations of lapsed workers back and forgets those workers. A lost worker counts as a crash of each of its operations;
-- at the limit they fail. $1 limit of workers
WITH lapsed AS (
    SELECT id FROM workers WHERE expires_at < now() ORDER BY expires_at LIMIT $1::integer FOR UPDATE SKIP LOCKED
), back AS (
    UPDATE operations o SET
        status = CASE WHEN o.failures + 1 >= o.max_attempts THEN 'failed' ELSE 'pending' END,
        completed_at = CASE WHEN o.failures + 1 >= o.max_attempts THEN now() END,
        failures = o.failures + 1, not_before = now(), current_file = NULL,
        error_class = 'internal',
        error_message = format('its worker died %s times, last because its lease lapsed', o.failures + 1),
        meta = jsonb_set(o.meta, '{attempts,-1}', coalesce(o.meta #> '{attempts,-1}', '{}') || jsonb_build_object(
            'ended_at', to_iso(now()), 'error_class', 'internal', 'reason', 'the worker''s lease lapsed'))
    FROM lapsed WHERE o.worker_id = lapsed.id AND o.status = 'processing'
    RETURNING o.uuid, o.queue, o.status, o.task_id, o.type, o.attempt, o.user_id, o.collection_id, o.collection_uuid
), gone AS (
    DELETE FROM workers w USING lapsed WHERE w.id = lapsed.id
)
SELECT uuid, queue, status, task_id, type, attempt, user_id, collection_id, collection_uuid FROM back
