-- Vectors of the live generation that belong to no chunk. $1 collection row id, $2 examples
WITH orphans AS (
    SELECT v.chunk_id FROM vec.g0 v
    LEFT JOIN chunks k ON k.collection_id = $1::bigint AND k.id = v.chunk_id AND k.document_id = v.document_id AND k.version = v.version
    WHERE k.id IS NULL AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = $1::bigint AND o.mutates AND o.status IN ('pending', 'processing'))
)
SELECT (SELECT count(*) FROM orphans) AS count,
    (SELECT string_agg('vector ' || e.chunk_id, ', ') FROM (SELECT chunk_id FROM orphans LIMIT $2::integer) e) AS examples
