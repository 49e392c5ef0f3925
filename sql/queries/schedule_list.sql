-- What is scheduled and how each task's last run went. Seconds from now, negative = ago.
SELECT s.name, s.expression, extract(epoch FROM s.next_due_at - now())::float8 AS next_seconds, to_iso(s.next_due_at) AS next_due_at,
    t.status, t.error, t.result, t.missed, extract(epoch FROM t.started_at - now())::float8 AS started_seconds, to_iso(t.started_at) AS started_at,
    extract(epoch FROM coalesce(t.ended_at, now()) - t.started_at)::float8 AS duration, t.worker,
    (SELECT l.holder FROM leases l WHERE l.name = 'scheduler' AND l.expires_at > now()) AS holder
FROM schedules s LEFT JOIN LATERAL (
    SELECT * FROM system_tasks t WHERE t.name = s.name ORDER BY t.id DESC LIMIT 1
) t ON true
ORDER BY s.name
