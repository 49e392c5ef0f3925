-- Final operations whose last event may not have been published; the columns of operation_final. $1 limit
SELECT o.uuid, o.type, o.status, o.attempt, o.user_id, o.collection_uuid, o.percent, o.processed, o.failed, o.total, o.error_class,
    o.error_message, o.result
FROM operations o
WHERE o.announced_at IS NULL AND o.status IN ('completed', 'failed', 'cancelled') AND o.completed_at < now() - interval '2 seconds'
ORDER BY o.completed_at LIMIT $1::integer
