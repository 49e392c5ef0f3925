-- The next documents of a collection to read, after an id. $1 collection id, $2 after id, $3 limit, $4 the suspected ones (boolean), else the others
SELECT d.id, d.path, d.file_name, d.file_path, d.file_size, d.mtime_ns, d.content_hash, d.next_version, d.live_version, d.chunk_count,
    d.is_suspected, d.crashes, d.losses, s.source_path
FROM documents d LEFT JOIN sources s ON s.id = d.source_id
WHERE d.collection_id = $1::bigint AND d.status IN ('pending', 'processing') AND d.id > $2::bigint AND d.is_suspected = $4::boolean
ORDER BY d.id LIMIT $3::integer
