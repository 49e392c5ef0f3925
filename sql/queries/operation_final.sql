-- What the last event of an operation says. No row: it is not final, or that event is out. $1 operation uuid
SELECT uuid, type, status, attempt, user_id, collection_uuid, percent, processed, failed, total, error_class, error_message, result
FROM operations
WHERE uuid = $1::uuid AND announced_at IS NULL AND status IN ('completed', 'failed', 'cancelled')
