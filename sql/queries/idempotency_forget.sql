-- Keys whose time is over, the oldest first; a bounded piece, so that nobody waits for it. $1 hours, $2 limit
WITH old AS (
    SELECT user_id, key FROM idempotency_keys WHERE created_at < now() - make_interval(hours => $1::integer)
    ORDER BY created_at LIMIT $2::integer FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM idempotency_keys k USING old WHERE k.user_id = old.user_id AND k.key = old.key RETURNING 1
)
SELECT count(*) AS keys FROM gone
