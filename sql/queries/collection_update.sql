-- Changes what was given, the rest stays. No row: deleted meanwhile. A name that is taken: unique violation of collections_name_key.
-- $1 collection row id, $2 name or null, $3 description given (boolean), $4 description, $5 public or null, $6 metadata given (boolean),
-- $7 metadata (JSON), $8 sync mode or null, $9 sync interval in minutes or null
UPDATE collections c SET
    name = coalesce($2::text, c.name),
    description = CASE WHEN $3::boolean THEN $4::text ELSE c.description END,
    is_public = coalesce($5::boolean, c.is_public),
    metadata = CASE WHEN $6::boolean THEN $7::jsonb ELSE c.metadata END,
    sync_mode = coalesce($8::text, c.sync_mode),
    sync_interval_minutes = coalesce($9::integer, c.sync_interval_minutes),
    sync_next_run_at = CASE
        WHEN coalesce($8::text, c.sync_mode) <> 'continuous' THEN NULL
        WHEN c.sync_next_run_at IS NULL OR $9::integer IS NOT NULL
            THEN now() + make_interval(mins => coalesce($9::integer, c.sync_interval_minutes))
        ELSE c.sync_next_run_at END,
    sync_paused_at = CASE WHEN coalesce($8::text, c.sync_mode) = 'continuous' THEN c.sync_paused_at END,
    updated_at = now()
WHERE c.id = $1::bigint AND c.deleted_at IS NULL
RETURNING c.uuid AS id, c.name, c.description, c.owner_id, 'collection_' || replace(c.uuid::text, '-', '_') AS vector_store_name, c.embedding_model,
    c.quantization, c.chunk_size, c.chunk_overlap, c.chunking_strategy, c.chunking_config, c.is_public, c.metadata, c.extraction_config,
    to_iso(c.created_at) AS created_at, to_iso(c.updated_at) AS updated_at, c.document_count, c.vector_count, c.total_size_bytes, c.status,
    c.status_message, c.error_count, c.sync_mode, c.sync_interval_minutes, to_iso(c.sync_paused_at) AS sync_paused_at,
    to_iso(c.sync_next_run_at) AS sync_next_run_at, to_iso(c.sync_last_run_started_at) AS sync_last_run_started_at,
    to_iso(c.sync_last_run_completed_at) AS sync_last_run_completed_at, c.sync_last_run_status, c.sync_last_error, c.id AS row_id
