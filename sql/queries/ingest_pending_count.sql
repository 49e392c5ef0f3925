-- $1 collection id
SELECT count(*) AS documents FROM documents WHERE collection_id = $1::bigint AND status IN ('pending', 'processing')
