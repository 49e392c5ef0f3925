-- $1 collection id, $2 model, $3 dim, $4 quantization, $5 operation uuid, $6 settings (JSON)
INSERT INTO generations (collection_id, model, dim, quantization, state, operation_uuid, settings)
VALUES ($1::bigint, $2::text, $3::integer, $4::text, 'building', $5::uuid, $6::jsonb)
RETURNING id
