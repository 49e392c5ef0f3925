-- Vectors of whole versions from one generation (vec.g0) into another (vec.g_to), whose type of vector the cast names.
-- $1 document ids (bigint[]), $2 their versions (integer[])
WITH copied AS (
    INSERT INTO vec.g_to (chunk_id, document_id, version, embedding)
    SELECT v.chunk_id, v.document_id, v.version, v.embedding::halfvec
    FROM unnest($1::bigint[], $2::integer[]) AS w (document_id, version)
    JOIN vec.g0 v ON v.document_id = w.document_id AND v.version = w.version
    RETURNING document_id
)
SELECT document_id, count(*) AS vectors FROM copied GROUP BY document_id
