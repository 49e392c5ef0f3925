-- Visible documents that have other than their number of chunks, or chunks without a vector in the live generation. $1 collection row id, $2 examples
WITH counted AS (
    SELECT k.document_id, k.version, count(*) AS chunks, count(v.chunk_id) AS vectors
    FROM chunks k LEFT JOIN vec.g0 v ON v.chunk_id = k.id WHERE k.collection_id = $1::bigint AND NOT k.is_parent GROUP BY k.document_id, k.version
), incomplete AS (
    SELECT d.id, d.uuid FROM documents d LEFT JOIN counted n ON n.document_id = d.id AND n.version = d.live_version
    WHERE d.collection_id = $1::bigint AND d.live_version > 0 AND d.status = 'completed'
        AND (coalesce(n.chunks, 0) <> d.chunk_count OR coalesce(n.vectors, 0) <> d.chunk_count)
        AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = $1::bigint AND o.mutates AND o.status IN ('pending', 'processing'))
)
SELECT (SELECT count(*) FROM incomplete) AS count,
    (SELECT string_agg('document ' || e.uuid, ', ') FROM (SELECT uuid FROM incomplete LIMIT $2::integer) e) AS examples
