-- The judgments that a benchmark measured with. $1 benchmark row id, $2 dataset row id
SELECT q.query_id, j.document_uuid AS document, j.relevance
FROM benchmark_judged j JOIN benchmark_queries q ON q.dataset_id = $2::bigint AND q.ordinal = j.ordinal
WHERE j.benchmark_id = $1::bigint ORDER BY j.ordinal, j.document_uuid
