-- Documents that were skipped as duplicates of one that is not there any more: their text is found by no search. $1 collection row id, $2 examples
WITH lost AS (
    SELECT d.uuid FROM documents d
    WHERE d.collection_id = $1::bigint AND d.duplicate_of IS NOT NULL AND d.status = 'completed'
        AND NOT EXISTS (SELECT 1 FROM documents o WHERE o.id = d.duplicate_of)
        AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = $1::bigint AND o.mutates AND o.status IN ('pending', 'processing'))
)
SELECT (SELECT count(*) FROM lost) AS count,
    (SELECT string_agg('document ' || e.uuid, ', ') FROM (SELECT uuid FROM lost LIMIT $2::integer) e) AS examples
