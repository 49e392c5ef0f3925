-- A deleted collection that no operation removes. $1 collection row id, $2 examples (not used: there is one)
SELECT count(*) AS count, max('collection ' || c.uuid) AS examples FROM collections c
WHERE c.id = $1::bigint AND c.deleted_at IS NOT NULL AND $2::integer >= 0
    AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = $1::bigint AND o.mutates AND o.status IN ('pending', 'processing'))
