-- Some of what integrity_vectors finds; the collection is locked and nobody's. $1 collection row id, $2 limit
DELETE FROM vec.g0 WHERE chunk_id IN (
    SELECT v.chunk_id FROM vec.g0 v
    LEFT JOIN chunks k ON k.collection_id = $1::bigint AND k.id = v.chunk_id AND k.document_id = v.document_id AND k.version = v.version
    WHERE k.id IS NULL LIMIT $2::integer)
