-- vector_search.sql for a generation that is being built: visible is what is staged. $1 query vector, $2 how many to fetch, $3 least score,
-- $4 how many to return, $5 generation id
WITH nearest AS MATERIALIZED (
    SELECT chunk_id, document_id, version, -(embedding <#> $1::halfvec) AS score
    FROM vec.g0 ORDER BY embedding <#> $1::halfvec LIMIT $2::integer
), visible AS (
    SELECT n.chunk_id, n.document_id, n.score
    FROM nearest n
    JOIN staged_documents s ON s.generation_id = $5::bigint AND s.document_id = n.document_id AND s.version = n.version AND s.is_whole
    WHERE n.score >= $3::float8
)
SELECT v.chunk_id, v.document_id, v.score::float8 AS score, f.fetched, f.worst::float8 AS worst, true AS is_active
FROM (SELECT count(*) AS fetched, min(score) AS worst FROM nearest) AS f LEFT JOIN visible v ON true
ORDER BY v.score DESC NULLS LAST, v.chunk_id LIMIT $4::integer
