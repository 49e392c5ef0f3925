-- Nearest visible chunks of one generation; vectors are normalised, so the inner product is the cosine. The ORDER BY must stay as it is or
-- the graph is not used; visibility and threshold are applied outside.
-- $1 query vector, $2 how many to fetch (more than wanted: some may not be visible), $3 least score, $4 how many to return
WITH nearest AS MATERIALIZED (
    SELECT chunk_id, document_id, version, -(embedding <#> $1::halfvec) AS score
    FROM vec.g0 ORDER BY embedding <#> $1::halfvec LIMIT $2::integer
)
SELECT n.chunk_id, n.document_id, n.score::float8 AS score, (SELECT count(*) FROM nearest) AS fetched
FROM nearest n JOIN documents d ON d.id = n.document_id AND d.live_version = n.version
WHERE n.score >= $3::float8
ORDER BY n.score DESC, n.chunk_id LIMIT $4::integer
