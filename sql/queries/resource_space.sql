-- The database and what running operations will still add to it: what one has done already is in the size.
SELECT pg_database_size(current_database()) AS database_bytes,
    (SELECT coalesce(sum(r.bytes * (100 - o.percent) / 100), 0)::bigint FROM reservations r JOIN operations o ON o.uuid = r.operation_uuid
     WHERE o.status IN ('pending', 'processing')) AS reserved_bytes
