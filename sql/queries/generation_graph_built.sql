-- $1 generation id
UPDATE generations SET has_graph = true WHERE id = $1::bigint
