-- The hash of what was read at last. $1 document id, $2 content hash
UPDATE documents SET content_hash = $2::text WHERE id = $1::bigint
