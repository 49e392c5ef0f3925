-- Benchmarks whose operation ended without them, or is gone: from now on they say so themselves. $1 at most so many
WITH stale AS (
    SELECT b.id, o.status, o.completed_at
    FROM benchmarks b LEFT JOIN operations o ON o.uuid = b.operation_uuid
    WHERE b.outcome IS NULL AND (o.uuid IS NULL OR o.status IN ('completed', 'failed', 'cancelled'))
    LIMIT $1::integer
)
UPDATE benchmarks b SET outcome = CASE WHEN s.status = 'cancelled' THEN 'cancelled' ELSE 'failed' END, completed_at = coalesce(s.completed_at, now())
FROM stale s WHERE b.id = s.id
