-- Where some documents lie. $1 ids (bigint[])
SELECT id, path FROM documents WHERE id = ANY ($1::bigint[])
