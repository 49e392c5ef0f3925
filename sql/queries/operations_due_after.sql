-- Due pending operations page by page, in the order of their turn. $1 limit, $2 not_before of the last one seen or null, $3 its id
SELECT uuid, queue, id, not_before FROM operations
WHERE status = 'pending' AND not_before <= now()
    AND ($2::timestamptz IS NULL OR (not_before, id) > ($2::timestamptz, $3::bigint))
ORDER BY not_before, id LIMIT $1::integer
