-- Gives an operation back to be tried again. $1 operation uuid, $2 task id, $3 delay in seconds, $4 counts as a failure (boolean),
-- $5 error class or null, $6 reason; {n} in it becomes the number of failures; $7 how the attempt ended
-- At the limit of attempts it becomes failed instead.
-- Model: hand back.
UPDATE operations SET
    status = CASE WHEN $4::boolean AND failures + 1 >= max_attempts THEN 'failed' ELSE 'pending' END,
    completed_at = CASE WHEN $4::boolean AND failures + 1 >= max_attempts THEN now() END,
    failures = failures + CASE WHEN $4::boolean THEN 1 ELSE 0 END,
    not_before = now() + make_interval(secs => $3::float8),
    worker_id = NULL, error_class = $5::text, error_message = replace($6::text, '{n}', (failures + 1)::text), current_file = NULL,
    meta = jsonb_set(meta, '{attempts,-1}', coalesce(meta #> '{attempts,-1}', '{}') || jsonb_build_object(
        'ended', $7::text, 'ended_at', to_iso(now()), 'error_class', $5::text, 'reason', replace($6::text, '{n}', (failures + 1)::text)))
WHERE uuid = $1::uuid AND task_id = $2::uuid AND status = 'processing'
RETURNING status, error_message, queue, type, attempt, failures, user_id, collection_id, collection_uuid, not_before <= now() AS is_due,
    meta #>> '{attempts,-1,ended}' AS ended, processed,
    extract(epoch FROM now() - (meta #>> '{attempts,-1,started_at}')::timestamptz)::float8 AS seconds, to_iso(not_before) AS not_before
