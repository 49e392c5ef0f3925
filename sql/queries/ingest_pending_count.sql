-- $1 source id
SELECT count(*) AS documents FROM documents WHERE source_id = $1::bigint AND status IN ('pending', 'processing')
