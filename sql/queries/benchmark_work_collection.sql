-- A collection as it is searched, to be noted beside results. No row: it is gone, or the user may not read it any more.
-- $1 collection row id, $2 user id
SELECT c.active_generation, c.document_count, c.vector_count, c.chunk_size, c.chunk_overlap, c.chunking_strategy, c.quantization
FROM collections c WHERE c.id = $1::bigint AND c.deleted_at IS NULL AND (c.is_public OR c.owner_id = $2::bigint)
