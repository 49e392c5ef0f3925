-- What an operation took: each attempt that is over, their sums, and what was estimated. $1 operation uuid
SELECT o.uuid AS operation_id, o.type, o.status, o.attempt AS attempts_begun, o.failures, o.meta -> 'estimate' AS estimate,
    to_iso(o.created_at) AS created_at, to_iso(o.started_at) AS started_at, to_iso(o.completed_at) AS completed_at,
    o.processed AS documents_processed, o.failed AS documents_failed, o.total AS documents_total,
    round(extract(epoch FROM coalesce(o.completed_at, now()) - o.started_at), 6) AS elapsed_seconds,
    round(extract(epoch FROM coalesce(o.started_at, o.completed_at, now()) - o.created_at), 6) AS queue_wait_seconds,
    f.attempts, f.busy_seconds, f.cpu_seconds, f.memory_peak_bytes, f.chunks, f.tokens, f.waited_seconds
FROM operations o CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object('attempt', m.attempt, 'recorded_at', to_iso(m.recorded_at)) || m.figures ORDER BY m.attempt), '[]') AS attempts,
        coalesce(sum((m.figures ->> 'duration_seconds')::float8), 0) AS busy_seconds, coalesce(sum((m.figures ->> 'cpu_seconds')::float8), 0) AS cpu_seconds,
        max((m.figures ->> 'memory_peak_bytes')::float8)::bigint AS memory_peak_bytes, coalesce(sum((m.figures ->> 'chunks')::bigint), 0)::bigint AS chunks,
        coalesce(sum((m.figures ->> 'tokens')::bigint), 0)::bigint AS tokens,
        coalesce(sum((m.figures ->> 'queue_wait_seconds')::float8), 0) AS waited_seconds
    FROM operation_figures m WHERE m.operation_uuid = o.uuid
) f
WHERE o.uuid = $1::uuid
