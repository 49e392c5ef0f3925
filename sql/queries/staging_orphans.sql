-- Building generations whose operation is over. $1 after id, $2 limit
SELECT g.id, g.collection_id FROM generations g
WHERE g.state = 'building' AND g.id > $1::bigint AND NOT EXISTS (
    SELECT 1 FROM operations o WHERE o.uuid = g.operation_uuid AND o.status IN ('pending', 'processing'))
ORDER BY g.id LIMIT $2::integer
