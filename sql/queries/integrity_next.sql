-- The next collection number that anything is kept under, and what there is of it; no row: that was the last. $1 after id
WITH next AS (
    SELECT min(n.id) AS id FROM (
        SELECT min(id) AS id FROM collections WHERE id > $1::bigint
        UNION ALL SELECT * FROM (SELECT collection_id FROM chunks WHERE collection_id > $1::bigint ORDER BY collection_id LIMIT 1) k
    ) n
)
SELECT n.id, c.uuid, c.owner_id, c.id IS NOT NULL AS is_there, c.deleted_at IS NOT NULL AS is_deleted, g.id AS generation_id, g.dim,
    g.quantization <> 'float32' AS is_half, t.oid IS NOT NULL AS has_table,
    c.active_generation IS NOT NULL AND t.oid IS NULL AS is_elsewhere,
    EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = n.id AND o.mutates AND o.status IN ('pending', 'processing')) AS is_held
FROM next n LEFT JOIN collections c ON c.id = n.id LEFT JOIN generations g ON g.id = c.active_generation AND g.store = 'pgvector'
LEFT JOIN pg_class t ON t.relname = 'g' || g.id AND t.relnamespace = 'vec'::regnamespace
WHERE n.id IS NOT NULL
