-- $1 days, $2 limit
WITH old AS (
    SELECT id FROM audit_log WHERE created_at < now() - make_interval(days => $1::integer)
    ORDER BY created_at LIMIT $2::integer FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM audit_log a USING old WHERE a.id = old.id RETURNING 1
)
SELECT count(*) AS removed FROM gone
