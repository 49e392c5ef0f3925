-- The generation that readers of a collection use. $1 collection id
SELECT g.id, g.dim, g.model, g.quantization, g.has_graph
FROM collections c JOIN generations g ON g.id = c.active_generation
WHERE c.id = $1::bigint
