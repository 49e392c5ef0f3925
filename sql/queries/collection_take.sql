-- A collection becomes busy with an operation that was inserted in this transaction. No row: it is in no state for it, or deleted.
-- $1 collection row id
UPDATE collections SET status = 'processing', status_message = NULL, updated_at = now()
WHERE id = $1::bigint AND status IN ('pending', 'ready') AND deleted_at IS NULL
RETURNING id
