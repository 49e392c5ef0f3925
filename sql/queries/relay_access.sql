-- Which of these connections must end, and why: user (gone or deactivated), key (revoked or expired), deleted (the operation's collection is; its
-- delete operation can still be watched), operation (not one that the user may see).
-- $1 user ids, $2 API keys' ids (0 = a signed token), $3 operations' UUIDs (null = the connection is on none); arrays of the same length
SELECT who.number - 1 AS number,
    CASE WHEN u.id IS NULL THEN 'user' WHEN who.api_key_id <> 0 AND k.id IS NULL THEN 'key'
         WHEN o.collection_uuid IS NOT NULL AND o.type <> 'delete' AND (c.id IS NULL OR c.deleted_at IS NOT NULL) THEN 'deleted' ELSE 'operation' END AS why
FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS who (user_id, api_key_id, operation, number)
    LEFT JOIN users u ON u.id = who.user_id AND u.is_active
    LEFT JOIN api_keys k
        ON k.id = who.api_key_id AND k.user_id = u.id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
    LEFT JOIN operations o ON o.uuid = who.operation
    LEFT JOIN collections c ON c.id = o.collection_id
WHERE (u.id IS NOT NULL AND (who.api_key_id = 0 OR k.id IS NOT NULL)
       AND (who.operation IS NULL OR (o.user_id = u.id AND (o.type = 'delete' OR o.collection_uuid IS NULL))
            OR (c.deleted_at IS NULL AND (c.owner_id = u.id OR c.is_public OR (c.id IS NOT NULL AND o.user_id = u.id))))) IS NOT TRUE
