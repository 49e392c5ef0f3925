-- Collections that have changed since their chunks were counted, in the order of their ids. $1 after this id, $2 limit
SELECT c.id, c.uuid
FROM collections c LEFT JOIN collection_statistics s ON s.collection_id = c.id
WHERE c.id > $1::bigint AND c.deleted_at IS NULL AND c.status <> 'processing' AND s.changed_at IS DISTINCT FROM c.updated_at
ORDER BY c.id LIMIT $2::integer
