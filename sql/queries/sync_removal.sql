-- Documents that are about to go, locked. $1 collection id, $2 ids (bigint[])
SELECT id, live_version, file_size, status FROM documents WHERE collection_id = $1::bigint AND id = ANY ($2::bigint[])
ORDER BY duplicate_of IS NULL, id FOR UPDATE
