-- What running operations have reserved, the largest first; a hundred of them.
SELECT r.operation_uuid AS id, o.collection_uuid AS collection_id, o.user_id, o.type, o.status, r.bytes,
    (r.bytes * (100 - o.percent) / 100)::bigint AS remaining_bytes, to_iso(r.created_at) AS created_at
FROM reservations r JOIN operations o ON o.uuid = r.operation_uuid
WHERE o.status IN ('pending', 'processing') ORDER BY r.bytes DESC, r.operation_uuid LIMIT 100
