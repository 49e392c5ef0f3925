-- A page of operations, newest first: of a user, or of a collection. One row comes back even for an empty page: it carries the total.
-- $1 user id or null, $2 collection row id or null, $3 states (text[]) or null, $4 types (text[]) or null, $5 limit, $6 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM operations o
      WHERE ($1::bigint IS NULL OR o.user_id = $1::bigint) AND ($2::bigint IS NULL OR o.collection_id = $2::bigint)
        AND ($3::text[] IS NULL OR o.status = ANY ($3::text[])) AND ($4::text[] IS NULL OR o.type = ANY ($4::text[]))) t
LEFT JOIN LATERAL (
    SELECT o.uuid AS id, o.collection_uuid AS collection_id, o.type, o.status, o.config,
    CASE WHEN o.status = 'completed' THEN NULL ELSE o.error_message END AS error_message, to_iso(o.created_at) AS created_at,
    to_iso(o.started_at) AS started_at, to_iso(o.completed_at) AS completed_at, round(o.percent::numeric, 1) AS progress,
    CASE WHEN o.status = 'processing' AND o.percent BETWEEN 1 AND 99.99
         THEN ceil(extract(epoch FROM now() - o.started_at) * (100 - o.percent) / o.percent)::bigint END AS eta
    FROM operations o
    WHERE ($1::bigint IS NULL OR o.user_id = $1::bigint) AND ($2::bigint IS NULL OR o.collection_id = $2::bigint)
      AND ($3::text[] IS NULL OR o.status = ANY ($3::text[])) AND ($4::text[] IS NULL OR o.type = ANY ($4::text[]))
    ORDER BY o.created_at DESC, o.id DESC LIMIT $5::integer OFFSET $6::bigint
) p ON true
