-- Chunks of no document, or of a version that is neither live nor being written. Older versions stay as long as a generation that is built or
-- retired may need them. One snapshot, in which nobody works on the collection. $1 collection row id, $2 examples
WITH orphans AS (
    SELECT k.id FROM chunks k LEFT JOIN documents d ON d.id = k.document_id AND d.collection_id = k.collection_id
    WHERE k.collection_id = $1::bigint AND (d.id IS NULL OR (k.version <> d.live_version
            AND NOT (d.status = 'processing' AND k.version = d.next_version)
            AND NOT EXISTS (SELECT 1 FROM generations g WHERE g.collection_id = $1::bigint AND g.state <> 'active')))
        AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = $1::bigint AND o.mutates AND o.status IN ('pending', 'processing'))
)
SELECT (SELECT count(*) FROM orphans) AS count, (SELECT string_agg('chunk ' || e.id, ', ') FROM (SELECT id FROM orphans LIMIT $2::integer) e) AS examples
