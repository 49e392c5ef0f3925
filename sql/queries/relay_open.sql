-- For sockets that open, many at once: who each is, and of its operation the state and whether this user may see it. One row each, in their order; no user:
-- there is none, or no such live API key, whose last use is noted once a minute; no uuid: there is no such operation.
-- $1 user ids (bigint[], 0 = by name), $2 usernames, $3 prefixes of API keys (null = a signed token), $4 SHA-256 of the keys, $5 operations' uuids (null = none)
WITH asked AS (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::uuid[]) WITH ORDINALITY AS a (user_id, username, prefix, secret_hash, operation, n)
), k AS (
    SELECT a.n, k.id, k.user_id, k.last_used_at, k.expires_at
    FROM asked a JOIN api_keys k ON k.prefix = a.prefix AND k.secret_hash = a.secret_hash
    WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
), stale AS (
    SELECT id FROM api_keys WHERE id IN (SELECT id FROM k WHERE last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
    FOR UPDATE SKIP LOCKED
), used AS (
    UPDATE api_keys SET last_used_at = now() WHERE id IN (SELECT id FROM stale)
)
SELECT u.id AS user_id, u.is_active, u.is_superuser, k.id AS api_key_id, ceil(extract(epoch FROM k.expires_at))::bigint AS api_key_expires_at,
    o.uuid, o.collection_uuid, o.type, o.status, o.percent, o.error_message, to_iso(o.created_at) AS created_at,
    to_iso(o.started_at) AS started_at, to_iso(o.completed_at) AS completed_at, o.announced_at IS NOT NULL AS is_announced,
    (o.user_id = u.id OR (c.deleted_at IS NULL AND (c.owner_id = u.id OR c.is_public))) IS TRUE AS may_see
FROM asked a
    LEFT JOIN k ON k.n = a.n
    LEFT JOIN users u ON u.id = CASE WHEN a.prefix IS NOT NULL THEN k.user_id WHEN a.user_id <> 0 THEN a.user_id
                                     ELSE (SELECT id FROM users WHERE lower(username) = lower(a.username)) END
    LEFT JOIN operations o ON o.uuid = a.operation
    LEFT JOIN collections c ON c.id = o.collection_id
ORDER BY a.n
