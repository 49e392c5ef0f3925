-- Back to the defaults. $1 user id, $2 section
UPDATE users SET preferences = (preferences - $2::text) || jsonb_build_object('updated_at', to_iso(now()))
WHERE id = $1::bigint RETURNING preferences, to_iso(created_at) AS created_at
