-- What the file is as it was read. $1 document id, $2 content hash, $3 size, $4 mtime ns
UPDATE documents SET content_hash = $2::text, file_size = $3::bigint, mtime_ns = $4::bigint WHERE id = $1::bigint
