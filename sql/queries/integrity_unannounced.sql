-- Final operations whose last event nobody published for a minute. $1 limit
SELECT uuid, count(*) OVER () AS count FROM operations
WHERE announced_at IS NULL AND status IN ('completed', 'failed', 'cancelled') AND completed_at < now() - interval '1 minute'
ORDER BY completed_at LIMIT $1::integer
