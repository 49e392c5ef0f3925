-- $1 user id
SELECT preferences, to_iso(created_at) AS created_at FROM users WHERE id = $1::bigint
