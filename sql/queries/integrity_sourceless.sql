-- Documents of no source: nothing ever reads them again. $1 collection row id, $2 examples
WITH lost AS (
    SELECT d.uuid FROM documents d WHERE d.collection_id = $1::bigint AND d.source_id IS NULL
        AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = $1::bigint AND o.mutates AND o.status IN ('pending', 'processing'))
)
SELECT (SELECT count(*) FROM lost) AS count,
    (SELECT string_agg('document ' || e.uuid, ', ') FROM (SELECT uuid FROM lost LIMIT $2::integer) e) AS examples
