-- $1 document id, $2 reason, $3 category, $4 mime type
UPDATE documents SET status = 'failed', error_message = $2::text, error_category = $3::text, mime_type = $4::text, updated_at = now()
WHERE id = $1::bigint
