-- Final operations whose last event nobody has published yet.
SELECT count(*) AS operations, extract(epoch FROM now() - min(completed_at))::float8 AS oldest_seconds
FROM operations WHERE announced_at IS NULL AND status IN ('completed', 'failed', 'cancelled')
