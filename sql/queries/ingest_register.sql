-- A new or changed file. Its old version stays visible until the new one is whole. A duplicate is recorded as completed without chunks.
-- $1 collection id, $2 source id, $3 path (bytea), $4 shown name, $5 shown path, $6 size, $7 mtime ns, $8 content hash,
-- $9 status, $10 error message, $11 error category, $12 duplicate of, $13 operation uuid
INSERT INTO documents (collection_id, source_id, path, file_name, file_path, file_size, mtime_ns, content_hash, status, error_message,
    error_category, duplicate_of, failed_by)
VALUES ($1::bigint, $2::bigint, $3::bytea, $4::text, $5::text, $6::bigint, $7::bigint, $8::text, $9::text, $10::text, $11::text, $12::bigint,
    CASE WHEN $9::text = 'failed' THEN $13::uuid END)
ON CONFLICT (collection_id, path) DO UPDATE SET
    source_id = excluded.source_id, file_name = excluded.file_name, file_path = excluded.file_path, file_size = excluded.file_size,
    mtime_ns = excluded.mtime_ns, content_hash = excluded.content_hash, status = excluded.status,
    error_message = excluded.error_message, error_category = excluded.error_category, duplicate_of = excluded.duplicate_of,
    failed_by = excluded.failed_by, is_suspected = documents.is_suspected AND documents.content_hash = excluded.content_hash,
    crashes = CASE WHEN documents.content_hash = excluded.content_hash THEN documents.crashes ELSE 0 END,
    losses = CASE WHEN documents.content_hash = excluded.content_hash THEN documents.losses ELSE 0 END, updated_at = now()
RETURNING id, live_version, chunk_count
