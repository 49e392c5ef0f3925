-- $1 user id, $2 collection uuid or null, $3 operation uuid, $4 action, $5 details (JSON object) or null
INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details)
VALUES ($1::bigint, $2::uuid, $3::uuid, $4::text, coalesce($5::jsonb, '{}'))
