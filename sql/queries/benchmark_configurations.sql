-- The grid with what was measured. $1 benchmark row id
SELECT c.id AS row_id, c.ordinal AS configuration, c.k, c.mode, c.chunking, c.metrics, c.latency, c.details, to_iso(c.completed_at) AS completed_at
FROM benchmark_configurations c WHERE c.benchmark_id = $1::bigint ORDER BY c.ordinal
