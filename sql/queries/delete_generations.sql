-- Generations of a collection that is being deleted. $1 collection row id
SELECT id FROM generations WHERE collection_id = $1::bigint ORDER BY id
