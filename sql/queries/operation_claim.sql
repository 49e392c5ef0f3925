-- A worker's first act on a popped UUID. No row: it is not pending, not due or not of a kind this worker knows; drop the UUID.
-- Committed with synchronous_commit = off (set for this transaction by the RETURNING list): lost in a power cut, the row reads pending again.
-- $1 operation uuid, $2 new task id, $3 worker id, $4 known types (text[])
UPDATE operations o SET
    status = 'processing', task_id = $2::uuid, worker_id = $3::text, attempt = o.attempt + 1,
    started_at = coalesce(o.started_at, now()),
    meta = attempt_begun(o.meta, jsonb_build_object(
        'attempt', o.attempt + 1, 'task_id', $2::text, 'worker_id', $3::text, 'started_at', to_iso(now())))
WHERE o.uuid = $1::uuid AND o.status = 'pending' AND o.not_before <= now() AND o.type = ANY ($4::text[])
  AND EXISTS (SELECT 1 FROM workers w WHERE w.id = $3::text AND w.expires_at > now() AND NOT w.draining)
RETURNING o.id, o.uuid, o.collection_id, o.collection_uuid, o.user_id, o.type, o.attempt, o.failures, o.max_attempts, o.config,
    o.processed, o.failed, o.total, to_iso(o.created_at) AS created_at,
    extract(epoch FROM now() - o.created_at)::float8 AS waited_seconds,
    extract(epoch FROM now() - o.not_before)::float8 AS due_seconds, o.meta #>> '{attempts,-2,ended}' AS previous_end,
    o.meta #>> '{attempts,-2,task_id}' AS previous_task_id, set_config('synchronous_commit', 'off', true) AS commits
