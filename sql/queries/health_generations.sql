-- Active generations that have outgrown the exact scan and have no graph; generations that are being built and belong to no operation.
-- $1 rows that are searched exactly
SELECT count(*) FILTER (WHERE g.state = 'active' AND NOT g.has_graph AND c.vector_count > $1::bigint) AS without_graph,
    count(*) FILTER (WHERE g.state = 'building' AND NOT EXISTS (
        SELECT 1 FROM operations o WHERE o.collection_id = g.collection_id AND o.mutates AND o.status IN ('pending', 'processing'))) AS abandoned,
    count(*) FILTER (WHERE g.state = 'active') AS active
FROM generations g LEFT JOIN collections c ON c.id = g.collection_id
