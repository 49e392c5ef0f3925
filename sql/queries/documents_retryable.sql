-- What a retry of a collection would read. $1 collection row id
SELECT count(*) FILTER (WHERE status = 'failed' AND error_category IS DISTINCT FROM 'permanent') AS failed,
    count(*) FILTER (WHERE status IN ('pending', 'processing')) AS pending
FROM documents WHERE collection_id = $1::bigint AND status IN ('failed', 'pending', 'processing')
