-- A page of the runs of what is scheduled, newest first; one row comes back even for an empty page: it carries the total.
-- $1 name or null, $2 limit, $3 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM system_tasks WHERE $1::text IS NULL OR name = $1::text) t
LEFT JOIN LATERAL (
    SELECT id, name, to_iso(due_at) AS due_at, missed, to_iso(started_at) AS started_at, to_iso(ended_at) AS ended_at, status, worker, result, error
    FROM system_tasks WHERE $1::text IS NULL OR name = $1::text ORDER BY id DESC LIMIT $2::integer OFFSET $3::bigint
) p ON true
