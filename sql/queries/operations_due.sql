-- Due pending operations, oldest first; the reconciler pushes those that no queue holds. $1 limit
SELECT uuid, queue FROM operations WHERE status = 'pending' AND not_before <= now() ORDER BY not_before, id LIMIT $1::integer
