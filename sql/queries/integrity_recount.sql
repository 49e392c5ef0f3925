-- Counts a collection anew, vectors too; it is locked and nobody's. $1 collection row id, $2 limit (not used: there is one)
UPDATE collections c SET document_count = n.documents, vector_count = n.vectors, total_size_bytes = n.bytes, error_count = n.failed, updated_at = now()
FROM (SELECT count(*) FILTER (WHERE live_version > 0) AS documents, coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0) AS vectors,
          coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0) AS bytes, count(*) FILTER (WHERE status = 'failed') AS failed
      FROM documents WHERE collection_id = $1::bigint) n
WHERE c.id = $1::bigint AND $2::integer > 0
    AND (c.document_count, c.vector_count, c.total_size_bytes, c.error_count) IS DISTINCT FROM (n.documents, n.vectors, n.bytes, n.failed)
