-- A collection's counters that are not what its documents say. $1 collection row id, $2 examples (not used: there is one)
SELECT count(*) AS count, max('collection ' || c.uuid || ': document_count ' || c.document_count || ' of ' || n.documents || ', vector_count '
        || c.vector_count || ' of ' || n.vectors || ', total_size_bytes ' || c.total_size_bytes || ' of ' || n.bytes || ', error_count '
        || c.error_count || ' of ' || n.failed) AS examples
FROM collections c, (
    SELECT count(*) FILTER (WHERE live_version > 0) AS documents, coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0) AS vectors,
        coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0) AS bytes, count(*) FILTER (WHERE status = 'failed') AS failed
    FROM documents WHERE collection_id = $1::bigint) n
WHERE c.id = $1::bigint AND $2::integer >= 0
    AND (c.document_count, c.vector_count, c.total_size_bytes, c.error_count) IS DISTINCT FROM (n.documents, n.vectors, n.bytes, n.failed)
    AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = $1::bigint AND o.mutates AND o.status IN ('pending', 'processing'))
