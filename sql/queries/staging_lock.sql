-- Documents stay as they are until the end of the transaction. $1 document ids (bigint[])
SELECT id, live_version FROM documents WHERE id = ANY ($1::bigint[]) ORDER BY id FOR NO KEY UPDATE
