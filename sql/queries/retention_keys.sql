-- Idempotency keys that no API removed (each does, after IDEMPOTENCY_KEY_HOURS). $1 days, $2 limit
WITH old AS (
    SELECT user_id, key FROM idempotency_keys WHERE created_at < now() - make_interval(days => $1::integer)
    ORDER BY created_at LIMIT $2::integer FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM idempotency_keys k USING old WHERE k.user_id = old.user_id AND k.key = old.key RETURNING 1
)
SELECT count(*) AS removed FROM gone
