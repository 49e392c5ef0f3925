-- $1 days, $2 limit
WITH old AS (
    SELECT id FROM sync_runs WHERE completed_at < now() - make_interval(days => $1::integer)
    ORDER BY id LIMIT $2::integer FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM sync_runs r USING old WHERE r.id = old.id RETURNING 1
)
SELECT count(*) AS removed FROM gone
