-- operation_claim.sql for many popped UUIDs of which only brief kinds are taken: what takes longer must not wait behind others in one child. No row: drop
-- the UUID, or give it back if operations_wanted.sql knows it. Rows that somebody holds at this moment are left alone, so that no two workers wait for
-- each other. $1 operation uuids (uuid[]), $2 as many new task ids (uuid[]), $3 worker id, $4 known brief types (text[])
-- (IS NOT DISTINCT FROM keeps the planner from walking the partial index of that status, which is small by its statistics and full of what has left it.)
WITH wanted AS (
    SELECT o.id, p.task_id, p.turn
    FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS p (uuid, task_id, turn)
    JOIN operations o ON o.uuid = p.uuid
    WHERE o.status IS NOT DISTINCT FROM 'pending' AND o.not_before <= now() AND o.type = ANY ($4::text[])
      AND EXISTS (SELECT 1 FROM workers w WHERE w.id = $3::text AND w.expires_at > now() AND NOT w.draining)
    FOR NO KEY UPDATE OF o SKIP LOCKED
)
UPDATE operations o SET
    status = 'processing', task_id = n.task_id, worker_id = $3::text, attempt = o.attempt + 1,
    started_at = coalesce(o.started_at, now()),
    meta = attempt_begun(o.meta, jsonb_build_object(
        'attempt', o.attempt + 1, 'task_id', n.task_id::text, 'worker_id', $3::text, 'started_at', to_iso(now())))
FROM wanted n WHERE o.id = n.id
RETURNING n.turn, o.uuid, o.task_id, o.type, o.attempt, o.failures, extract(epoch FROM now() - o.created_at)::float8 AS waited_seconds,
    extract(epoch FROM now() - o.not_before)::float8 AS due_seconds, o.meta #>> '{attempts,-2,ended}' AS previous_end, o.meta #>> '{attempts,-2,task_id}' AS previous_task_id,
    set_config('synchronous_commit', 'off', true) AS commits
