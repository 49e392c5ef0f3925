-- Queries of a new dataset, in their order. $1 dataset row id, $2 query ids (text[]), $3 texts (text[])
INSERT INTO benchmark_queries (dataset_id, ordinal, query_id, content)
SELECT $1::bigint, q.n - 1, q.query_id, q.content FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS q (query_id, content, n)
