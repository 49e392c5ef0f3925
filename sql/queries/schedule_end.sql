-- A run is over. One that was stopped before its end gives its due time back, so that the next holder takes it at once. One that failed because
-- something was away is tried again after one and after two minutes, then it waits for its next time.
-- $1 id, $2 completed | failed | stopped, $3 result (JSON) or null, $4 error or null, $5 something was away (boolean). No row: it was counted as lost.
WITH ended AS (
    UPDATE system_tasks SET status = $2::text, ended_at = now(), result = $3::jsonb, error = $4::text
    WHERE id = $1::bigint AND status = 'running'
    RETURNING id, name, due_at, status, extract(epoch FROM now() - started_at)::float8 AS seconds
), after AS (
    UPDATE schedules s SET
        losses = CASE WHEN e.status = 'stopped' THEN s.losses WHEN e.status = 'failed' AND $5::boolean THEN s.losses + 1 ELSE 0 END,
        next_due_at = CASE
            WHEN e.status = 'stopped' THEN least(s.next_due_at, e.due_at)
            WHEN e.status = 'failed' AND $5::boolean AND s.losses < 2 THEN least(s.next_due_at, now() + make_interval(mins => s.losses + 1))
            ELSE s.next_due_at END
    FROM ended e WHERE s.name = e.name AND s.last_due_at = e.due_at
)
SELECT id, name, seconds FROM ended
