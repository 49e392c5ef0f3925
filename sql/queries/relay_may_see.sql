-- Which of these connections may go on: of active users, their API key still good, and, on an operation, of its creator, its collection's owner, or
-- anyone if that is public. Of what was done on a collection that is deleted only its delete operation is left to watch.
-- $1 operation uuid, or null for connections that are on none; $2 user ids and $3 API keys' ids (bigint[], of the same length; 0 = a signed token)
SELECT DISTINCT who.user_id, who.api_key_id, u.is_superuser
FROM unnest($2::bigint[], $3::bigint[]) AS who (user_id, api_key_id)
    JOIN users u ON u.id = who.user_id AND u.is_active
    LEFT JOIN api_keys k
        ON k.id = who.api_key_id AND k.user_id = u.id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    LEFT JOIN operations o ON o.uuid = $1::uuid
    LEFT JOIN collections c ON c.id = o.collection_id
WHERE (who.api_key_id = 0 OR k.id IS NOT NULL)
  AND ($1::uuid IS NULL OR (o.user_id = u.id AND (o.type = 'delete' OR o.collection_uuid IS NULL))
       OR (c.deleted_at IS NULL AND (c.owner_id = u.id OR c.is_public OR (c.id IS NOT NULL AND o.user_id = u.id))))
