-- Whether a connection's user is still active, and its API key still good. No row: not.
-- $1 user id, $2 API key's id (0 = a signed token)
SELECT u.is_superuser
FROM users u
    LEFT JOIN api_keys k ON k.id = $2::bigint AND k.user_id = u.id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
WHERE u.id = $1::bigint AND u.is_active AND ($2::bigint = 0 OR k.id IS NOT NULL)
