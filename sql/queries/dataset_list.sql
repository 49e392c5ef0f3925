-- A page of a user's datasets, newest first. One row comes back even for an empty page: it carries the total.
-- $1 owner, $2 limit, $3 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM benchmark_datasets d WHERE d.owner_id = $1::bigint) t
LEFT JOIN LATERAL (
    SELECT d.uuid AS id, d.name, d.description, d.format, d.content_hash, d.query_count, d.judgment_count, to_iso(d.created_at) AS created_at
    FROM benchmark_datasets d WHERE d.owner_id = $1::bigint
    ORDER BY d.created_at DESC, d.id DESC LIMIT $2::integer OFFSET $3::bigint
) p ON true
