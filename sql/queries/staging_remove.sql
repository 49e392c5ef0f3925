-- A piece of what a generation leaves: chunks of versions that were written for it and that nobody sees. The generation's table is gone.
-- $1 generation id, $2 collection id, $3 how many documents
WITH piece AS (
    DELETE FROM staged_documents WHERE generation_id = $1::bigint AND document_id IN (
        SELECT document_id FROM staged_documents WHERE generation_id = $1::bigint ORDER BY document_id LIMIT $3::integer FOR UPDATE SKIP LOCKED)
    RETURNING document_id, version, is_cut
), chunks_gone AS (
    DELETE FROM chunks k USING piece p
    WHERE k.collection_id = $2::bigint AND k.document_id = p.document_id AND k.version = p.version AND p.is_cut
        AND NOT EXISTS (SELECT 1 FROM documents d WHERE d.id = p.document_id AND d.live_version = p.version)
    RETURNING 1
)
SELECT (SELECT count(*) FROM piece) AS documents, (SELECT count(*) FROM chunks_gone) AS chunks
