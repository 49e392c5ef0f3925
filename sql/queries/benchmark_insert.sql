-- $1 name, $2 user id, $3 dataset row id, $4 collection row id, $5 operation uuid, $6 repeats, $7 details (JSON object)
INSERT INTO benchmarks (name, user_id, dataset_id, collection_id, collection_uuid, collection_name, operation_uuid, repeats, details)
SELECT $1::text, $2::bigint, $3::bigint, c.id, c.uuid, c.name, $5::uuid, $6::integer, $7::jsonb
FROM collections c WHERE c.id = $4::bigint AND c.deleted_at IS NULL
RETURNING id, uuid
