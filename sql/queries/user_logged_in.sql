-- $1 user id, $2 new password hash or null
UPDATE users SET last_login = now(), password_hash = coalesce($2::text, password_hash) WHERE id = $1::bigint
