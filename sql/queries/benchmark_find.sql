-- One benchmark, if it is the user's or the user is a superuser. $1 uuid, $2 user id, $3 is a superuser
SELECT b.id AS row_id, b.uuid AS id, b.name, d.id AS dataset_row_id, d.uuid AS dataset_id, d.name AS dataset_name, d.content_hash AS dataset_hash,
    b.collection_uuid AS collection_id, b.collection_name, b.operation_uuid AS operation_id, b.repeats, b.ignored, b.details,
    coalesce(b.outcome, o.status, 'failed') AS status, CASE WHEN b.outcome IS DISTINCT FROM 'completed' THEN o.error_message END AS error_message,
    (SELECT count(*) FROM benchmark_configurations c WHERE c.benchmark_id = b.id) AS configurations_total,
    (SELECT count(*) FROM benchmark_configurations c WHERE c.benchmark_id = b.id AND c.metrics IS NOT NULL) AS configurations_completed,
    to_iso(b.created_at) AS created_at, to_iso(b.completed_at) AS completed_at
FROM benchmarks b JOIN benchmark_datasets d ON d.id = b.dataset_id LEFT JOIN operations o ON o.uuid = b.operation_uuid
WHERE b.uuid = $1::uuid AND (b.user_id = $2::bigint OR $3::boolean)
