-- Adding a path again re-uses its source. $1 collection row id, $2 type, $3 path as the client wrote it, $4 config (JSON)
INSERT INTO sources (collection_id, source_type, source_path, source_config)
VALUES ($1::bigint, $2::text, $3::text, $4::jsonb)
ON CONFLICT (collection_id, source_type, source_path) DO UPDATE SET source_config = excluded.source_config, updated_at = now()
RETURNING id
