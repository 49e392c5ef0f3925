-- Operations that were tried and wait to be tried again, the next one first. $1 limit
SELECT o.uuid AS operation, o.type, c.name AS collection, o.queue, o.attempt, o.failures, o.max_attempts, to_iso(o.not_before) AS not_before,
    extract(epoch FROM o.not_before - now())::float8 AS in_seconds, o.error_class, o.error_message AS reason, count(*) OVER () AS total_rows
FROM operations o LEFT JOIN collections c ON c.id = o.collection_id
WHERE o.status = 'pending' AND o.attempt > 0 ORDER BY o.not_before, o.id LIMIT $1::integer
