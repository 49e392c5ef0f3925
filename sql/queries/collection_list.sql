-- A page of what a user may see, newest first. One row comes back even for an empty page: it carries the total.
-- $1 user id, $2 with other people's public ones (boolean), $3 limit, $4 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM collections
      WHERE deleted_at IS NULL AND (owner_id = $1::bigint OR ($2::boolean AND is_public))) t
LEFT JOIN LATERAL (
    SELECT c.uuid AS id, c.name, c.description, c.owner_id, 'collection_' || replace(c.uuid::text, '-', '_') AS vector_store_name, c.embedding_model,
    c.quantization, c.chunk_size, c.chunk_overlap, c.chunking_strategy, c.chunking_config, c.is_public, c.metadata, c.extraction_config,
    to_iso(c.created_at) AS created_at, to_iso(c.updated_at) AS updated_at, c.document_count, c.vector_count, c.total_size_bytes, c.status,
    c.status_message, c.error_count, c.sync_mode, c.sync_interval_minutes, to_iso(c.sync_paused_at) AS sync_paused_at,
    to_iso(c.sync_next_run_at) AS sync_next_run_at, to_iso(c.sync_last_run_started_at) AS sync_last_run_started_at,
    to_iso(c.sync_last_run_completed_at) AS sync_last_run_completed_at, c.sync_last_run_status, c.sync_last_error, c.id AS row_id
    FROM collections c WHERE c.deleted_at IS NULL AND (c.owner_id = $1::bigint OR ($2::boolean AND c.is_public))
    ORDER BY c.created_at DESC, c.id DESC LIMIT $3::integer OFFSET $4::bigint
) p ON true
