-- $1 dataset row id, $2 ordinals of queries (integer[]), $3 kinds (text[]), $4 documents (text[]), $5 grades (integer[])
INSERT INTO benchmark_judgments (dataset_id, ordinal, kind, document, relevance)
SELECT $1::bigint, j.* FROM unnest($2::integer[], $3::text[], $4::text[], $5::integer[]) AS j
