-- Another document of the collection with this content. $1 collection id, $2 content hash, $3 path that does not count
SELECT id FROM documents
WHERE collection_id = $1::bigint AND content_hash = $2::text AND path <> $3::bytea AND duplicate_of IS NULL
    AND status IN ('pending', 'processing', 'completed')
ORDER BY id LIMIT 1
