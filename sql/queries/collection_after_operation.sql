-- What a finished operation leaves its collection in; in the same transaction. $1 collection id, $2 status, $3 status message
UPDATE collections SET status = $2::text, status_message = $3::text, updated_at = now() WHERE id = $1::bigint AND deleted_at IS NULL
