-- What an attempt needs to know of its collection. $1 collection id
SELECT uuid, embedding_model, quantization, chunk_size, chunk_overlap, chunking_strategy, chunking_config, document_count, vector_count,
    total_size_bytes
FROM collections WHERE id = $1::bigint AND deleted_at IS NULL
