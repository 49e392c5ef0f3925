-- A piece of the notes of generations that were switched to: their documents name the versions themselves. A switch away from one of them waits, as
-- it makes notes of its own. $1 how many
WITH active AS (
    SELECT id FROM generations g WHERE g.state = 'active' AND EXISTS (SELECT 1 FROM staged_documents s WHERE s.generation_id = g.id)
    LIMIT 1 FOR SHARE
)
DELETE FROM staged_documents WHERE (generation_id, document_id) IN (
    SELECT s.generation_id, s.document_id FROM staged_documents s WHERE s.generation_id = (SELECT id FROM active) LIMIT $1::integer)
