-- Vectors of some chunks of one generation, whatever version they are of. $1 chunk ids (bigint[])
SELECT chunk_id, embedding FROM vec.g0 WHERE chunk_id = ANY ($1::bigint[])
