-- A page of what one configuration found, query by query; files are named as long as the collection may be read. One row comes back even for an empty page: it carries the total.
-- $1 configuration row id, $2 dataset row id, $3 limit, $4 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM benchmark_results r WHERE r.configuration_id = $1::bigint) t
LEFT JOIN LATERAL (
    SELECT q.query_id AS id, q.content AS query, r.relevant, r.relevant_returned, r.judged_returned, r."precision", r.recall, r.mrr, r.ndcg, r.map,
    r.search_ms, r.embedding_ms,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('document_id', h.document, 'score', h.score, 'rank', h.rank, 'file_name', d.file_name,
                                                  'relevance', j.relevance) ORDER BY h.rank), '[]')
     FROM unnest(r.documents, r.scores) WITH ORDINALITY AS h (document, score, rank)
     LEFT JOIN documents d ON d.uuid = h.document AND EXISTS (SELECT 1 FROM benchmarks b JOIN collections k ON k.id = b.collection_id
         WHERE b.id = c.benchmark_id AND (k.is_public OR k.owner_id = b.user_id))
     LEFT JOIN benchmark_judged j ON j.benchmark_id = c.benchmark_id AND j.ordinal = r.ordinal AND j.document_uuid = h.document) AS documents
    FROM benchmark_results r JOIN benchmark_configurations c ON c.id = r.configuration_id
    JOIN benchmark_queries q ON q.dataset_id = $2::bigint AND q.ordinal = r.ordinal
    WHERE r.configuration_id = $1::bigint
    ORDER BY r.ordinal LIMIT $3::integer OFFSET $4::bigint
) p ON true
