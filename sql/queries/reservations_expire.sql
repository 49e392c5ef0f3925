-- Removes what operations had reserved that are over. It counted no more since they ended. $1 limit
WITH gone AS (
    DELETE FROM reservations WHERE operation_uuid IN (
        SELECT r.operation_uuid FROM reservations r JOIN operations o ON o.uuid = r.operation_uuid
        WHERE o.status IN ('completed', 'failed', 'cancelled') LIMIT $1::integer)
    RETURNING 1
)
SELECT count(*) AS removed FROM gone
