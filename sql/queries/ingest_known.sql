-- What is known of some paths. A duplicate is good as long as its original still has the same content.
-- Settled: this operation found it bad before, or it was set aside. $1 collection id, $2 paths (bytea[]), $3 operation uuid
SELECT d.path, d.id, d.file_size, d.mtime_ns, d.content_hash, d.status,
    d.duplicate_of IS NULL OR EXISTS (
        SELECT 1 FROM documents o WHERE o.id = d.duplicate_of AND o.content_hash = d.content_hash
            AND o.status IN ('pending', 'processing', 'completed')) AS is_good,
    d.status = 'failed' AND (d.is_suspected OR d.failed_by = $3::uuid) AS is_settled,
    d.status = 'failed' AND d.error_category = 'permanent' AS is_permanent
FROM documents d WHERE d.collection_id = $1::bigint AND d.path = ANY ($2::bytea[])
