-- $1 collection row id, $2 source id or null, $3 path or null
-- A run whose operation was cancelled or failed before its end could be noted has failed.
SELECT s.id, c.uuid AS collection_id, s.source_type, s.source_path, s.source_config, s.document_count, s.size_bytes,
    to_iso(s.last_run_started_at) AS last_run_started_at, to_iso(s.last_run_completed_at) AS last_run_completed_at,
    CASE WHEN s.last_run_status = 'running' AND NOT EXISTS (
        SELECT 1 FROM operations o WHERE o.collection_id = s.collection_id AND o.mutates AND o.status IN ('pending', 'processing')
            AND (o.type = 'sync' OR o.config ->> 'source_id' = s.id::text)) THEN 'failed' ELSE s.last_run_status END AS last_run_status,
    s.last_error, to_iso(s.last_indexed_at) AS last_indexed_at, to_iso(s.created_at) AS created_at, to_iso(s.updated_at) AS updated_at
FROM sources s JOIN collections c ON c.id = s.collection_id
WHERE s.collection_id = $1::bigint AND (s.id = $2::bigint OR s.source_path = $3::text)
ORDER BY s.id LIMIT 1
