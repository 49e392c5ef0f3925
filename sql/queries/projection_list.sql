-- A collection's projections, newest first, without their legends. A projection is in its operation's state; it is stale when what it shows has
-- changed since. One row comes back even for an empty page: it carries the total. $1 collection row id, $2 limit, $3 offset
SELECT t.total, v.*
FROM (SELECT count(*) AS total FROM projections WHERE collection_id = $1::bigint) t
LEFT JOIN LATERAL (
    SELECT p.uuid AS id, p.uuid AS projection_id, c.uuid AS collection_id, p.operation_uuid AS operation_id,
    CASE WHEN o.id IS NOT NULL THEN o.status WHEN p.completed_at IS NOT NULL THEN 'completed' ELSE 'failed' END AS status,
    coalesce(round(o.percent::numeric, 1), CASE WHEN p.completed_at IS NOT NULL THEN 100 ELSE 0 END) AS progress,
    CASE WHEN o.status IN ('pending', 'failed') THEN o.error_message END AS error_message, p.method, p.method AS reducer, 2 AS dimensions, p.seed, p.sample_size,
    p.color_by, p.parameters, p.point_count, p.dim AS vector_dimensions, p.figures, to_iso(p.created_at) AS created_at, to_iso(p.completed_at) AS completed_at,
    p.completed_at IS NOT NULL AND (p.generation_id IS DISTINCT FROM c.active_generation OR p.document_count <> c.document_count
        OR p.vector_count <> c.vector_count OR EXISTS (SELECT 1 FROM operations m WHERE m.collection_id = c.id AND m.mutates
            AND m.completed_at > p.read_at AND m.processed > 0)) AS is_stale
    FROM projections p JOIN collections c ON c.id = p.collection_id LEFT JOIN operations o ON o.uuid = p.operation_uuid
    WHERE p.collection_id = $1::bigint
    ORDER BY p.created_at DESC, p.id DESC LIMIT $2::integer OFFSET $3::bigint
) v ON true
