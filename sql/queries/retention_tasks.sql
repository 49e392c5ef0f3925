-- Runs of what is scheduled, but for the newest of each. $1 days, $2 limit
WITH old AS (
    SELECT id FROM system_tasks t
    WHERE started_at < now() - make_interval(days => $1::integer) AND status <> 'running'
        AND EXISTS (SELECT 1 FROM system_tasks newer WHERE newer.name = t.name AND newer.id > t.id)
    ORDER BY id LIMIT $2::integer FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM system_tasks t USING old WHERE t.id = old.id RETURNING 1
)
SELECT count(*) AS removed FROM gone
