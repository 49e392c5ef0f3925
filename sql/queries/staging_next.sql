-- The next visible documents that are not staged. Settled: the file, if it has that hash, is what the chunks were cut from.
-- $1 collection id, $2 generation id, $3 after document id, $4 limit
SELECT d.id, d.path, d.file_name, d.file_size, d.mtime_ns, d.content_hash, d.next_version, d.live_version, d.chunk_count,
    d.status = 'completed' AS is_settled
FROM documents d
WHERE d.collection_id = $1::bigint AND d.live_version > 0 AND d.id > $3::bigint AND NOT EXISTS (
    SELECT 1 FROM staged_documents s WHERE s.generation_id = $2::bigint AND s.document_id = d.id AND s.is_whole)
ORDER BY d.id LIMIT $4::integer
