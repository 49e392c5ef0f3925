-- Brings a collection's counters up to date, after the fence (lock order: documents, operations, collections). $1 collection id
UPDATE collections c SET
    document_count = n.documents, total_size_bytes = n.bytes, error_count = n.failed, vector_count = n.vectors, updated_at = now()
FROM (SELECT count(*) FILTER (WHERE live_version > 0) AS documents,
             coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0) AS bytes,
             coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0) AS vectors,
             count(*) FILTER (WHERE status = 'failed') AS failed
      FROM documents WHERE collection_id = $1::bigint) AS n
WHERE c.id = $1::bigint
RETURNING c.document_count, c.vector_count, c.total_size_bytes
