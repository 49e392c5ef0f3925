-- How a source's run stands. $1 source id, $2 running | success | partial | failed, $3 last error or null
UPDATE sources SET
    last_run_status = $2::text, last_error = $3::text, updated_at = now(),
    last_run_started_at = CASE WHEN $2::text = 'running' THEN now() ELSE last_run_started_at END,
    last_run_completed_at = CASE WHEN $2::text = 'running' THEN NULL ELSE now() END,
    last_indexed_at = CASE WHEN $2::text IN ('success', 'partial') THEN now() ELSE last_indexed_at END,
    document_count = CASE WHEN $2::text = 'running' THEN document_count ELSE (
        SELECT count(*) FROM documents d WHERE d.source_id = $1::bigint AND d.status = 'completed') END,
    size_bytes = CASE WHEN $2::text = 'running' THEN size_bytes ELSE (
        SELECT coalesce(sum(d.file_size), 0) FROM documents d WHERE d.source_id = $1::bigint AND d.status = 'completed') END
WHERE id = $1::bigint
