-- $1 user id, $2 key
SELECT request_hash, status, body FROM idempotency_keys WHERE user_id = $1::bigint AND key = $2::text
