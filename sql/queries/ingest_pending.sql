-- The next documents of a collection to read, after an id. $1 collection id, $2 after id, $3 limit, $4 the suspected ones (boolean), else the others
SELECT id, path, file_name, file_path, file_size, mtime_ns, content_hash, next_version, live_version, chunk_count, is_suspected, crashes, losses
FROM documents
WHERE collection_id = $1::bigint AND status IN ('pending', 'processing') AND id > $2::bigint AND is_suspected = $4::boolean
ORDER BY id LIMIT $3::integer
