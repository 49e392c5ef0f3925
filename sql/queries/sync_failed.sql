-- Documents that failed in this operation, by source. $1 collection id, $2 operation uuid
SELECT coalesce(source_id, 0) AS source_id, count(*) AS failed
FROM documents WHERE collection_id = $1::bigint AND status = 'failed' AND failed_by = $2::uuid GROUP BY source_id
