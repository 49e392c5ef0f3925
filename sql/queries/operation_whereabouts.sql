-- How an operation stands and who holds it. $1 operation uuid
SELECT o.uuid, o.status, o.type, o.attempt, o.queue, o.task_id, o.worker_id, w.host, w.pid, round(o.percent::numeric, 1)::float8 AS percent,
    extract(epoch FROM o.not_before - now())::float8 AS due_in_seconds, to_iso(o.not_before) AS not_before,
    extract(epoch FROM w.expires_at - now())::float8 AS lease_seconds, o.error_message, o.collection_uuid,
    extract(epoch FROM now() - coalesce((o.meta #>> '{attempts,-1,started_at}')::timestamptz, o.started_at))::float8 AS seconds
FROM operations o LEFT JOIN workers w ON w.id = o.worker_id WHERE o.uuid = $1::uuid
