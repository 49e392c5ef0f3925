-- $1 document id
UPDATE documents SET status = 'pending', updated_at = now() WHERE id = $1::bigint AND status = 'processing'
