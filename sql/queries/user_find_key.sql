-- The owner of a live API key; its last use is noted once a minute.
-- $1 prefix, $2 SHA-256 of the whole key
WITH k AS (
    SELECT id, user_id, last_used_at, expires_at FROM api_keys
    WHERE prefix = $1::text AND secret_hash = $2::text AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
), used AS (
    UPDATE api_keys a SET last_used_at = now() FROM k
    WHERE a.id = k.id AND (k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute')
)
SELECT u.id, u.username, u.email, u.full_name, u.password_hash, u.is_active, u.is_superuser, to_iso(u.created_at) AS created_at,
       to_iso(u.updated_at) AS updated_at, to_iso(u.last_login) AS last_login,
       k.id AS api_key_id, ceil(extract(epoch FROM k.expires_at))::bigint AS api_key_expires_at
FROM k JOIN users u ON u.id = k.user_id
