-- A name that is taken by any user's collection: unique violation of collections_name_key.
-- $1 name, $2 description, $3 owner id, $4 embedding model, $5 quantization, $6 chunk size, $7 chunk overlap, $8 chunking strategy,
-- $9 chunking config (JSON), $10 public (boolean), $11 metadata (JSON), $12 sync mode, $13 sync interval in minutes
INSERT INTO collections AS c (name, description, owner_id, embedding_model, quantization, chunk_size, chunk_overlap, chunking_strategy,
    chunking_config, is_public, metadata, sync_mode, sync_interval_minutes, sync_next_run_at)
VALUES ($1::text, $2::text, $3::bigint, $4::text, $5::text, $6::integer, $7::integer, $8::text, $9::jsonb, $10::boolean, $11::jsonb,
    $12::text, $13::integer, CASE WHEN $12::text = 'continuous' THEN now() + make_interval(mins => $13::integer) END)
RETURNING c.uuid AS id, c.name, c.description, c.owner_id, 'collection_' || replace(c.uuid::text, '-', '_') AS vector_store_name, c.embedding_model,
    c.quantization, c.chunk_size, c.chunk_overlap, c.chunking_strategy, c.chunking_config, c.is_public, c.metadata, c.extraction_config,
    to_iso(c.created_at) AS created_at, to_iso(c.updated_at) AS updated_at, c.document_count, c.vector_count, c.total_size_bytes, c.status,
    c.status_message, c.error_count, c.sync_mode, c.sync_interval_minutes, to_iso(c.sync_paused_at) AS sync_paused_at,
    to_iso(c.sync_next_run_at) AS sync_next_run_at, to_iso(c.sync_last_run_started_at) AS sync_last_run_started_at,
    to_iso(c.sync_last_run_completed_at) AS sync_last_run_completed_at, c.sync_last_run_status, c.sync_last_error, c.id AS row_id
