-- Of the oldest rows those that are old enough; ids rise with time, so a piece that is not full is the last. $1 days, $2 limit
WITH oldest AS (
    SELECT id, created_at FROM audit_log ORDER BY id LIMIT $2::integer
), gone AS (
    DELETE FROM audit_log a USING oldest o WHERE a.id = o.id AND o.created_at < now() - make_interval(days => $1::integer) RETURNING 1
)
SELECT count(*) AS removed FROM gone
