-- $1 user id, $2 key, $3 HTTP status, $4 body of the answer
UPDATE idempotency_keys SET status = $3::integer, body = $4::text WHERE user_id = $1::bigint AND key = $2::text
