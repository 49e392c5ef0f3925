-- First statement of a request's transaction: a second request with the key waits here for the first one's end. No row: the key is known.
-- $1 user id, $2 key, $3 hash of the request
INSERT INTO idempotency_keys (user_id, key, request_hash, status, body) VALUES ($1::bigint, $2::text, $3::text, 0, '')
ON CONFLICT (user_id, key) DO NOTHING RETURNING key
