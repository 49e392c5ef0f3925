-- $1 user id, or 0 to look by $2 username
SELECT id, username, email, full_name, password_hash, is_active, is_superuser, to_iso(created_at) AS created_at,
       to_iso(updated_at) AS updated_at, to_iso(last_login) AS last_login
FROM users WHERE id = $1::bigint OR ($1::bigint = 0 AND lower(username) = lower($2::text))
