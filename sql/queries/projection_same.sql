-- The newest projection that was asked for in the same words and still shows what there is, or is being made. $1 collection row id, $2 method, $3 seed,
-- $4 sample size, $5 color_by, $6 parameters (JSON)
SELECT p.uuid AS id
FROM projections p JOIN collections c ON c.id = p.collection_id LEFT JOIN operations o ON o.uuid = p.operation_uuid
WHERE p.collection_id = $1::bigint AND p.method = $2::text AND p.seed = $3::bigint AND p.sample_size = $4::integer AND p.color_by = $5::text
  AND p.parameters = $6::jsonb
  AND (o.status IN ('pending', 'processing') OR (p.completed_at IS NOT NULL AND coalesce(o.status = 'completed', true)
    AND p.generation_id IS NOT DISTINCT FROM c.active_generation AND p.document_count = c.document_count AND p.vector_count = c.vector_count))
  AND NOT EXISTS (SELECT 1 FROM operations m WHERE m.collection_id = c.id AND m.mutates AND m.completed_at > coalesce(p.read_at, p.created_at) AND m.processed > 0)
ORDER BY p.id DESC LIMIT 1
