-- One operation as clients see it, with what decides who may see and cancel it. $1 operation uuid
SELECT o.uuid AS id, o.collection_uuid AS collection_id, o.type, o.status, o.config,
    CASE WHEN o.status = 'completed' THEN NULL ELSE o.error_message END AS error_message, to_iso(o.created_at) AS created_at,
    to_iso(o.started_at) AS started_at, to_iso(o.completed_at) AS completed_at, round(o.percent::numeric, 1) AS progress,
    CASE WHEN o.status = 'processing' AND o.percent BETWEEN 1 AND 99.99
         THEN ceil(extract(epoch FROM now() - o.started_at) * (100 - o.percent) / o.percent)::bigint END AS eta,
    o.user_id, c.owner_id, coalesce(c.is_public AND c.deleted_at IS NULL, false) AS is_public
FROM operations o LEFT JOIN collections c ON c.id = o.collection_id
WHERE o.uuid = $1::uuid
