-- A fresh version for a document that is cut anew; until it is whole it is known to have rows. Another operation takes a version only for documents
-- that are not completed, so the two never take the same. No row: it changed meanwhile.
-- $1 generation id, $2 document id, $3 its live version, $4 nobody else changes documents of the collection (boolean)
WITH taken AS (
    UPDATE documents SET next_version = next_version + 1
    WHERE id = $2::bigint AND live_version = $3::integer AND ($4::boolean OR status = 'completed')
    RETURNING next_version - 1 AS version
)
INSERT INTO staged_documents (generation_id, document_id, version, live_version, is_cut)
SELECT $1::bigint, $2::bigint, version, $3::integer, true FROM taken
RETURNING version
