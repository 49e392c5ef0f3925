-- A failed document is to be read again. No row: it did not fail. $1 document uuid, $2 collection row id
UPDATE documents SET status = 'pending', error_message = NULL, error_category = NULL, failed_by = NULL, crashes = 0, losses = 0,
    retry_count = retry_count + 1, last_retry_at = now(), updated_at = now()
WHERE uuid = $1::uuid AND collection_id = $2::bigint AND status = 'failed'
RETURNING id
