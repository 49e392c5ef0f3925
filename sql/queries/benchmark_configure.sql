-- The grid of a new benchmark, in its order. $1 benchmark row id, $2 k (integer[]), $3 modes (text[]), $4 chunkings (text[] of JSON, or nulls)
INSERT INTO benchmark_configurations (benchmark_id, ordinal, k, mode, chunking)
SELECT $1::bigint, c.n - 1, c.k, c.mode, c.chunking::jsonb
FROM unnest($2::integer[], $3::text[], $4::text[]) WITH ORDINALITY AS c (k, mode, chunking, n)
