-- Vectors of chunks whose text has come back in other chunks of the same document. $1 document id, $2 version, $3 chunks they are of (bigint[]),
-- $4 chunks they are for (bigint[])
INSERT INTO vec.g_to (chunk_id, document_id, version, embedding)
SELECT w.to_id, $1::bigint, $2::integer, v.embedding::halfvec
FROM unnest($3::bigint[], $4::bigint[]) AS w (from_id, to_id) JOIN vec.g0 v ON v.chunk_id = w.from_id
