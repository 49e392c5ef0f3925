-- What was written of documents that are not whole. $1 generation id, $2 collection id
WITH partial AS (
    DELETE FROM staged_documents WHERE generation_id = $1::bigint AND NOT is_whole RETURNING document_id, version, is_cut
), chunks_gone AS (
    DELETE FROM chunks k USING partial p
    WHERE k.collection_id = $2::bigint AND k.document_id = p.document_id AND k.version = p.version AND p.is_cut
)
DELETE FROM vec.g0 v USING partial p WHERE v.document_id = p.document_id AND v.version = p.version
