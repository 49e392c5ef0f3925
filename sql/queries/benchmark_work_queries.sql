-- $1 dataset row id
SELECT q.ordinal, q.query_id, q.content FROM benchmark_queries q WHERE q.dataset_id = $1::bigint ORDER BY q.ordinal
