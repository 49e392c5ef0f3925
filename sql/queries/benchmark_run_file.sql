-- A configuration's rankings for a TREC run file. $1 configuration row id, $2 dataset row id
SELECT q.query_id, h.document, h.rank, h.score
FROM benchmark_results r JOIN benchmark_queries q ON q.dataset_id = $2::bigint AND q.ordinal = r.ordinal
CROSS JOIN LATERAL unnest(r.documents, r.scores) WITH ORDINALITY AS h (document, score, rank)
WHERE r.configuration_id = $1::bigint ORDER BY r.ordinal, h.rank
