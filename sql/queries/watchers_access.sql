-- Whose an operation is, to someone who asks who watches it. No row: there is no such operation.
-- $1 operation uuid, $2 user id
SELECT (o.user_id = $2::bigint OR (c.deleted_at IS NULL AND c.owner_id = $2::bigint)) IS TRUE AS is_own,
    (c.deleted_at IS NULL AND c.is_public) IS TRUE AS is_public
FROM operations o LEFT JOIN collections c ON c.id = o.collection_id
WHERE o.uuid = $1::uuid
