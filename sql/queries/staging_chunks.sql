-- All chunks of one version, in the order in which a text is cut (what holds others comes before them), and whether they have a vector.
-- $1 collection id, $2 document id, $3 version
SELECT k.id, k.start_byte, k.end_byte, k.content, EXISTS (SELECT 1 FROM vec.g0 v WHERE v.chunk_id = k.id) AS has_vector
FROM chunks k WHERE k.collection_id = $1::bigint AND k.document_id = $2::bigint AND k.version = $3::integer
ORDER BY k.start_byte, k.end_byte DESC, k.ordinal
