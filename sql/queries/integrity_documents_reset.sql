-- Some of what integrity_documents finds is to be read again; the collection is locked and nobody's. $1 collection row id, $2 limit
WITH counted AS (
    SELECT k.document_id, k.version, count(*) AS chunks, count(v.chunk_id) AS vectors
    FROM chunks k LEFT JOIN vec.g0 v ON v.chunk_id = k.id WHERE k.collection_id = $1::bigint AND NOT k.is_parent GROUP BY k.document_id, k.version
)
UPDATE documents SET status = 'pending', updated_at = now() WHERE id IN (
    SELECT d.id FROM documents d LEFT JOIN counted n ON n.document_id = d.id AND n.version = d.live_version
    WHERE d.collection_id = $1::bigint AND d.live_version > 0 AND d.status = 'completed'
        AND (coalesce(n.chunks, 0) <> d.chunk_count OR coalesce(n.vectors, 0) <> d.chunk_count)
    LIMIT $2::integer)
