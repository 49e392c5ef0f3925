-- The second half of the switch, after the fence: readers use the new generation and its settings from the COMMIT on.
-- $1 collection id, $2 generation id, $3 model, $4 quantization, $5 chunk size or null, $6 chunk overlap or null, $7 strategy or null,
-- $8 chunking config (JSON) or null
UPDATE collections c SET
    active_generation = $2::bigint, embedding_model = $3::text, quantization = $4::text, chunk_size = $5::integer, chunk_overlap = $6::integer,
    chunking_strategy = $7::text, chunking_config = $8::jsonb, document_count = n.documents, total_size_bytes = n.bytes, error_count = n.failed,
    vector_count = (SELECT coalesce(sum(vectors), 0) FROM staged_documents WHERE generation_id = $2::bigint AND is_whole), updated_at = now()
FROM (SELECT count(*) FILTER (WHERE live_version > 0) AS documents, coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0) AS bytes,
          count(*) FILTER (WHERE status = 'failed') AS failed
      FROM documents WHERE collection_id = $1::bigint) AS n
WHERE c.id = $1::bigint
