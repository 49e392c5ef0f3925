-- What two configurations measured for the same queries, those with a relevant document in both. $1, $2 configuration row ids
SELECT a."precision" AS precision_a, b."precision" AS precision_b, a.recall AS recall_a, b.recall AS recall_b, a.mrr AS mrr_a, b.mrr AS mrr_b,
    a.ndcg AS ndcg_a, b.ndcg AS ndcg_b, a.map AS map_a, b.map AS map_b
FROM benchmark_results a
JOIN benchmark_configurations ca ON ca.id = a.configuration_id JOIN benchmarks ba ON ba.id = ca.benchmark_id
JOIN benchmark_queries qa ON qa.dataset_id = ba.dataset_id AND qa.ordinal = a.ordinal
JOIN benchmark_configurations cb ON cb.id = $2::bigint JOIN benchmarks bb ON bb.id = cb.benchmark_id
JOIN benchmark_queries qb ON qb.dataset_id = bb.dataset_id AND qb.query_id = qa.query_id
JOIN benchmark_results b ON b.configuration_id = cb.id AND b.ordinal = qb.ordinal
WHERE a.configuration_id = $1::bigint AND a.relevant > 0 AND b.relevant > 0
ORDER BY qa.query_id
