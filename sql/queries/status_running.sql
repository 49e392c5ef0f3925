-- What is being worked on, by worker. `holder`: alive, lapsed or gone. $1 limit
SELECT o.uuid AS operation, o.type, c.name AS collection, o.queue, o.attempt, o.failures, round(o.percent::numeric, 1)::float8 AS percent,
    o.processed, o.failed, o.total,
    extract(epoch FROM now() - coalesce((o.meta #>> '{attempts,-1,started_at}')::timestamptz, o.started_at))::float8 AS seconds,
    o.task_id AS task, o.worker_id AS worker,
    CASE WHEN w.id IS NULL THEN 'gone' WHEN w.expires_at < now() THEN 'lapsed' ELSE 'alive' END AS holder, count(*) OVER () AS total_rows
FROM operations o LEFT JOIN collections c ON c.id = o.collection_id LEFT JOIN workers w ON w.id = o.worker_id
WHERE o.status = 'processing' ORDER BY o.worker_id, o.started_at, o.id LIMIT $1::integer
