-- Ids of a source's documents, in their order, from the index alone. $1 source id, $2 after id, $3 limit
SELECT id FROM documents WHERE source_id = $1::bigint AND id > $2::bigint ORDER BY id LIMIT $3::integer
