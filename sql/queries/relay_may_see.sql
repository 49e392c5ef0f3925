-- Which of these users may still see an operation: active, and its creator, its collection's owner, or anyone if that is public.
-- $1 operation uuid, $2 user ids (bigint[])
SELECT u.id
FROM operations o LEFT JOIN collections c ON c.id = o.collection_id JOIN users u ON u.id = ANY ($2::bigint[]) AND u.is_active
WHERE o.uuid = $1::uuid AND (o.user_id = u.id OR (c.deleted_at IS NULL AND (c.owner_id = u.id OR c.is_public)))
