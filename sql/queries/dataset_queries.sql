-- A page of a dataset's queries with their judgments. One row comes back even for an empty page: it carries the total.
-- $1 dataset row id, $2 limit, $3 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM benchmark_queries q WHERE q.dataset_id = $1::bigint) t
LEFT JOIN LATERAL (
    SELECT q.query_id AS id, q.content AS text,
    (SELECT coalesce(jsonb_agg(jsonb_build_object(CASE j.kind WHEN 'any' THEN 'document' ELSE j.kind END, j.document, 'relevance', j.relevance)
                               ORDER BY j.relevance DESC, j.document), '[]')
     FROM benchmark_judgments j WHERE j.dataset_id = q.dataset_id AND j.ordinal = q.ordinal) AS relevant
    FROM benchmark_queries q WHERE q.dataset_id = $1::bigint
    ORDER BY q.ordinal LIMIT $2::integer OFFSET $3::bigint
) p ON true
