-- Runs that their worker put off no more are lost. The due time is taken again, but for the third loss in a row: what kills its worker
-- waits for its next time then. Returns what was lost. No parameters.
WITH lost AS (
    UPDATE system_tasks SET status = 'lost', ended_at = now(), error = 'its worker died or was cut off'
    WHERE status = 'running' AND expires_at < now()
    RETURNING id, name, due_at, worker
), again AS (
    UPDATE schedules s SET losses = s.losses + 1, next_due_at = CASE WHEN s.losses < 2 THEN least(s.next_due_at, l.due_at) ELSE s.next_due_at END
    FROM (SELECT name, max(due_at) AS due_at FROM lost WHERE due_at IS NOT NULL GROUP BY name) l
    WHERE s.name = l.name AND s.last_due_at = l.due_at
    RETURNING s.name, s.losses
)
SELECT l.id, l.name, l.worker, a.losses FROM lost l LEFT JOIN again a ON a.name = l.name
