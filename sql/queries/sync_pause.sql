-- Pauses or resumes the scheduled syncs of a continuous collection; resumed, it is due at once. No row: it is not continuous, or deleted.
-- $1 collection row id, $2 paused (boolean)
UPDATE collections c SET
    sync_paused_at = CASE WHEN $2::boolean THEN coalesce(c.sync_paused_at, now()) END,
    sync_next_run_at = CASE WHEN NOT $2::boolean AND c.sync_paused_at IS NOT NULL THEN now() ELSE c.sync_next_run_at END,
    updated_at = now()
WHERE c.id = $1::bigint AND c.deleted_at IS NULL AND c.sync_mode = 'continuous'
RETURNING c.uuid AS id, c.name, c.description, c.owner_id, 'collection_' || replace(c.uuid::text, '-', '_') AS vector_store_name, c.embedding_model,
    c.quantization, c.chunk_size, c.chunk_overlap, c.chunking_strategy, c.chunking_config, c.is_public, c.metadata, c.extraction_config,
    to_iso(c.created_at) AS created_at, to_iso(c.updated_at) AS updated_at, c.document_count, c.vector_count, c.total_size_bytes, c.status,
    c.status_message, c.error_count, c.sync_mode, c.sync_interval_minutes, to_iso(c.sync_paused_at) AS sync_paused_at,
    to_iso(c.sync_next_run_at) AS sync_next_run_at, to_iso(c.sync_last_run_started_at) AS sync_last_run_started_at,
    to_iso(c.sync_last_run_completed_at) AS sync_last_run_completed_at, c.sync_last_run_status, c.sync_last_error, c.id AS row_id
