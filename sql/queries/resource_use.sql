-- What a user may take and has taken. -1 = unlimited. Documents that wait to be read count too, once they are registered.
-- $1 user id; defaults, -1 = unlimited: $2 collections, $3 documents, $4 bytes, $5 operations
SELECT coalesce(l.max_collections, $2::bigint) AS max_collections, coalesce(l.max_documents, $3::bigint) AS max_documents,
    coalesce(l.max_bytes, $4::bigint) AS max_bytes, coalesce(l.max_operations, $5::bigint) AS max_operations,
    l.max_collections IS NOT NULL AS own_collections, l.max_documents IS NOT NULL AS own_documents, l.max_bytes IS NOT NULL AS own_bytes,
    l.max_operations IS NOT NULL AS own_operations, to_iso(l.updated_at) AS updated_at,
    c.collections, c.documents + w.documents AS documents, c.bytes + w.bytes AS bytes,
    (SELECT count(*) FROM operations o WHERE o.user_id = u.id AND o.status IN ('pending', 'processing')) AS operations
FROM (SELECT $1::bigint AS id) u LEFT JOIN resource_limits l ON l.user_id = u.id
CROSS JOIN LATERAL (
    SELECT count(*) AS collections, coalesce(sum(document_count), 0)::bigint AS documents, coalesce(sum(total_size_bytes), 0)::bigint AS bytes
    FROM collections WHERE owner_id = u.id AND deleted_at IS NULL) c
CROSS JOIN LATERAL (
    SELECT count(*) AS documents, coalesce(sum(d.file_size), 0)::bigint AS bytes
    FROM collections o JOIN documents d ON d.collection_id = o.id AND d.status IN ('pending', 'processing') AND d.live_version = 0
    WHERE o.owner_id = u.id AND o.deleted_at IS NULL) w
