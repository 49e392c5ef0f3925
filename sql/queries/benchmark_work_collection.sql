-- A collection as it is searched, to be noted beside results. $1 collection row id
SELECT c.active_generation, c.document_count, c.vector_count, c.chunk_size, c.chunk_overlap, c.chunking_strategy, c.quantization
FROM collections c WHERE c.id = $1::bigint AND c.deleted_at IS NULL
