-- The switch to the new version, in its last transaction. $1 document id, $2 version, $3 chunk count, $4 mime type, $5 metadata (JSON)
UPDATE documents SET status = 'completed', live_version = $2::integer, next_version = $2::integer + 1, chunk_count = $3::integer,
    mime_type = $4::text, metadata = $5::jsonb, error_message = NULL, error_category = NULL, failed_by = NULL,
    is_suspected = false, crashes = 0, losses = 0, updated_at = now()
WHERE id = $1::bigint
