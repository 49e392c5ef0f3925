-- How many documents a source still has. $1 source id
SELECT count(*) AS documents FROM documents WHERE source_id = $1::bigint
