-- Generations of collections that are not there, and others without their table. What a collection's operation is about, and what is retired, may be
-- on its way out. $1 of no collection (boolean), else without a table; $2 limit
SELECT g.id, count(*) OVER () AS count FROM generations g
WHERE g.store = 'pgvector' AND CASE WHEN $1::boolean THEN NOT EXISTS (SELECT 1 FROM collections c WHERE c.id = g.collection_id)
    ELSE g.state <> 'retired' AND EXISTS (SELECT 1 FROM collections c WHERE c.id = g.collection_id)
        AND NOT EXISTS (SELECT 1 FROM pg_class t WHERE t.relname = 'g' || g.id AND t.relnamespace = 'vec'::regnamespace)
        AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = g.collection_id AND o.mutates AND o.status IN ('pending', 'processing'))
    END
ORDER BY g.id LIMIT $2::integer
