-- The collection is locked and nobody's. $1 collection row id, $2 limit (not used: there is one)
UPDATE collections SET status = 'ready', status_message = 'The last operation ended without saying so', updated_at = now()
WHERE id = $1::bigint AND status = 'processing' AND deleted_at IS NULL AND $2::integer > 0
