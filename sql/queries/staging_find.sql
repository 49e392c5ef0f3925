-- The generation that an operation builds with these settings. $1 operation uuid, $2 settings (JSON)
SELECT id, collection_id, dim, model, quantization, has_graph FROM generations
WHERE operation_uuid = $1::uuid AND settings = $2::jsonb AND state = 'building'
