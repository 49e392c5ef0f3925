-- A page of a user's benchmarks, newest first. One row comes back even for an empty page: it carries the total.
-- $1 user id, $2 limit, $3 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM benchmarks b WHERE b.user_id = $1::bigint) t
LEFT JOIN LATERAL (
    SELECT b.uuid AS id, b.name, d.uuid AS dataset_id, d.name AS dataset_name, d.content_hash AS dataset_hash, b.collection_uuid AS collection_id,
    b.collection_name, b.operation_uuid AS operation_id, b.repeats, b.ignored, b.details, coalesce(b.outcome, o.status, 'failed') AS status,
    CASE WHEN b.outcome IS DISTINCT FROM 'completed' THEN o.error_message END AS error_message,
    (SELECT count(*) FROM benchmark_configurations c WHERE c.benchmark_id = b.id) AS configurations_total,
    (SELECT count(*) FROM benchmark_configurations c WHERE c.benchmark_id = b.id AND c.metrics IS NOT NULL) AS configurations_completed,
    to_iso(b.created_at) AS created_at, to_iso(b.completed_at) AS completed_at
    FROM benchmarks b JOIN benchmark_datasets d ON d.id = b.dataset_id LEFT JOIN operations o ON o.uuid = b.operation_uuid
    WHERE b.user_id = $1::bigint
    ORDER BY b.created_at DESC, b.id DESC LIMIT $2::integer OFFSET $3::bigint
) p ON true
