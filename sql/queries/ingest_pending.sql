-- The next documents of a collection to read, after an id. $1 collection id, $2 after id, $3 limit
SELECT id, path, file_name, file_path, file_size, mtime_ns, content_hash, next_version, live_version, chunk_count
FROM documents WHERE collection_id = $1::bigint AND status IN ('pending', 'processing') AND id > $2::bigint
ORDER BY id LIMIT $3::integer
