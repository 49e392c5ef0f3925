-- One operation as clients see it, with what decides who may see and cancel it, and the history of its attempts.
-- $1 operation uuid, $2 tasks and workers are named (boolean): not for everybody, as their names tell of hosts
SELECT o.uuid AS id, o.collection_uuid AS collection_id, o.type, o.status, o.config,
    CASE WHEN o.status = 'completed' THEN NULL ELSE o.error_message END AS error_message, to_iso(o.created_at) AS created_at,
    to_iso(o.started_at) AS started_at, to_iso(o.completed_at) AS completed_at, round(o.percent::numeric, 1) AS progress,
    CASE WHEN o.status = 'processing' AND o.percent BETWEEN 1 AND 99.99
         THEN ceil(extract(epoch FROM now() - o.started_at) * (100 - o.percent) / o.percent)::bigint END AS eta,
    o.attempt, o.max_attempts, o.failures, CASE WHEN o.status = 'pending' AND o.attempt > 0 THEN to_iso(o.not_before) END AS next_attempt_at,
    coalesce((o.meta ->> 'attempts_dropped')::bigint, 0) AS earlier_attempts,
    (SELECT coalesce(jsonb_agg(jsonb_build_object(
        'attempt', a.entry -> 'attempt', 'started_at', a.entry -> 'started_at', 'ended_at', a.entry -> 'ended_at',
        'outcome', CASE WHEN a.entry ? 'ended' THEN a.entry ->> 'ended' WHEN a.entry ? 'ended_at' THEN 'handed_back'
                        WHEN o.status = 'processing' AND a.n = jsonb_array_length(o.meta -> 'attempts') THEN 'running' END,
        'error_class', a.entry -> 'error_class',
        'error_category', CASE a.entry ->> 'error_class' WHEN 'resource' THEN 'transient' WHEN 'internal' THEN 'unknown'
                          ELSE a.entry ->> 'error_class' END,
        'reason', a.entry -> 'reason',
        'next_try_at', CASE WHEN o.status = 'pending' AND a.n = jsonb_array_length(o.meta -> 'attempts') THEN to_iso(o.not_before) END,
        'task_id', CASE WHEN $2::boolean THEN a.entry -> 'task_id' END,
        'worker', CASE WHEN $2::boolean THEN a.entry -> 'worker_id' END) ORDER BY a.n), '[]')
     FROM jsonb_array_elements(o.meta -> 'attempts') WITH ORDINALITY AS a (entry, n)) AS attempts,
    o.user_id, c.owner_id, coalesce(c.is_public AND c.deleted_at IS NULL, false) AS is_public
FROM operations o LEFT JOIN collections c ON c.id = o.collection_id
WHERE o.uuid = $1::uuid
