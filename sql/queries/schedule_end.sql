-- A run is over. One that was stopped before its end gives its due time back, so that the next holder takes it at once.
-- $1 id, $2 completed | failed | stopped, $3 result (JSON) or null, $4 error or null. No row: it was counted as lost.
WITH ended AS (
    UPDATE system_tasks SET status = $2::text, ended_at = now(), result = $3::jsonb, error = $4::text
    WHERE id = $1::bigint AND status = 'running'
    RETURNING id, name, due_at, status, extract(epoch FROM now() - started_at)::float8 AS seconds
), after AS (
    UPDATE schedules s SET losses = CASE WHEN e.status = 'stopped' THEN s.losses ELSE 0 END,
        next_due_at = CASE WHEN e.status = 'stopped' THEN least(s.next_due_at, e.due_at) ELSE s.next_due_at END
    FROM ended e WHERE s.name = e.name AND s.last_due_at = e.due_at
)
SELECT id, name, seconds FROM ended
