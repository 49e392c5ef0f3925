-- What a WebSocket on an operation is told first, and whether this user may see it. No row: there is no such operation.
-- $1 operation uuid, $2 user id
SELECT o.uuid, o.collection_uuid, o.type, o.status, o.percent, o.error_message, to_iso(o.created_at) AS created_at,
    to_iso(o.started_at) AS started_at, to_iso(o.completed_at) AS completed_at, o.announced_at IS NOT NULL AS is_announced,
    (o.user_id = $2::bigint OR (c.deleted_at IS NULL AND (c.owner_id = $2::bigint OR c.is_public))) IS TRUE AS may_see
FROM operations o LEFT JOIN collections c ON c.id = o.collection_id
WHERE o.uuid = $1::uuid
