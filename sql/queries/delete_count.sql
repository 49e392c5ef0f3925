-- $1 collection row id
SELECT count(*) AS documents FROM documents WHERE collection_id = $1::bigint
