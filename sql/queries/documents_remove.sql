-- Documents with all versions of their chunks. $1 collection id, $2 document ids (bigint[])
WITH gone AS (
    DELETE FROM documents WHERE id = ANY ($2::bigint[]) AND collection_id = $1::bigint RETURNING 1
), chunks_gone AS (
    DELETE FROM chunks WHERE collection_id = $1::bigint AND document_id = ANY ($2::bigint[]) RETURNING 1
)
SELECT (SELECT count(*) FROM gone) AS documents, (SELECT count(*) FROM chunks_gone) AS chunks
