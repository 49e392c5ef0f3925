-- The next failed documents that a retry may help become pending: those that were not reset since a moment (an operation's beginning), so that what
-- fails again is not read for ever. $1 collection row id, $2 limit, $3 operation uuid or null (then: all of them)
UPDATE documents SET status = 'pending', error_message = NULL, error_category = NULL, failed_by = NULL, crashes = 0, losses = 0,
    retry_count = retry_count + 1, last_retry_at = now(), updated_at = now()
WHERE id IN (
    SELECT id FROM documents
    WHERE collection_id = $1::bigint AND status = 'failed' AND error_category IS DISTINCT FROM 'permanent'
        AND ($3::uuid IS NULL OR failed_by IS DISTINCT FROM $3::uuid)
    ORDER BY id LIMIT $2::integer FOR UPDATE)
RETURNING id
