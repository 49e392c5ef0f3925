-- A piece of the notes of generations that were switched to: their documents name the versions themselves. $1 how many
DELETE FROM staged_documents s USING (
    SELECT s.generation_id, s.document_id FROM generations g JOIN staged_documents s ON s.generation_id = g.id
    WHERE g.state = 'active' LIMIT $1::integer) AS p
WHERE s.generation_id = p.generation_id AND s.document_id = p.document_id
