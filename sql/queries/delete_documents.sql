-- The next documents of a collection with all their chunks. $1 collection row id, $2 limit, $3 after id
WITH gone AS (
    DELETE FROM documents WHERE id IN (
        SELECT id FROM documents WHERE collection_id = $1::bigint AND id > $3::bigint ORDER BY id LIMIT $2::integer FOR UPDATE)
    RETURNING id
), chunks_gone AS (
    DELETE FROM chunks WHERE collection_id = $1::bigint AND document_id IN (SELECT id FROM gone) RETURNING 1
)
SELECT (SELECT count(*) FROM gone) AS documents, (SELECT max(id) FROM gone) AS last_id, (SELECT count(*) FROM chunks_gone) AS chunks
