-- The file was written again with the same content. $1 document id, $2 mtime ns
UPDATE documents SET mtime_ns = $2::bigint, updated_at = now() WHERE id = $1::bigint
