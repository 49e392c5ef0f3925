-- What an attempt builds, and what it builds it from. No row: the projection is deleted. $1 operation uuid
SELECT p.id, p.uuid, p.method, p.seed, p.sample_size, p.color_by, p.parameters, p.completed_at IS NOT NULL AS is_built, p.point_count, p.figures,
    c.document_count, c.vector_count, now()::text AS read_at
FROM projections p JOIN collections c ON c.id = p.collection_id
WHERE p.operation_uuid = $1::uuid AND c.deleted_at IS NULL
