-- What attempts need to know of their operations. No row: another attempt owns it, or it was cancelled. The session is called by the first task, so
-- that a later attempt can end what is left of it. $1 operation uuids (uuid[]), $2 their task ids (uuid[]), $3 the first task's id
-- (IS NOT DISTINCT FROM keeps the planner from walking the partial index of that status, which is small by its statistics and full of what has left it.)
SELECT set_config('application_name', $3::text, false) AS session, p.turn, o.collection_id, o.collection_uuid, o.user_id, o.type, o.attempt,
    o.failures, o.max_attempts, o.processed, o.failed, o.config, o.meta #>> '{attempts,-2,reason}' AS last_reason,
    extract(epoch FROM now() - o.not_before)::float8 AS waited_seconds
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS p (uuid, task_id, turn)
JOIN operations o ON o.uuid = p.uuid AND o.task_id = p.task_id AND o.status IS NOT DISTINCT FROM 'processing'
ORDER BY p.turn
