-- The row of a generation of which nothing is left. No row: another one is removing the rest of it. $1 generation id
DELETE FROM generations g WHERE g.id = $1::bigint AND NOT EXISTS (SELECT 1 FROM staged_documents s WHERE s.generation_id = g.id)
