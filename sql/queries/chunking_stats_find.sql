-- What is known of a collection's chunks, and whether nothing has changed since. $1 collection row id
SELECT s.chunking, to_iso(s.computed_at) AS computed_at, coalesce(s.changed_at = c.updated_at, false) AS is_fresh, c.vector_count,
    coalesce(c.chunking_strategy, 'recursive') AS strategy
FROM collections c LEFT JOIN collection_statistics s ON s.collection_id = c.id
WHERE c.id = $1::bigint AND c.deleted_at IS NULL
