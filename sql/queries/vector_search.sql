-- Nearest visible chunks of one generation; vectors are normalised, so the inner product is the cosine. The ORDER BY must stay as it is or
-- the graph is not used; visibility and threshold are applied outside. There always is a row, with nulls when nothing is visible, as it tells how
-- many were fetched and the score of the worst of them.
-- It tells too, of the same moment, whether the generation is the one that readers use: after a switch its versions are not visible any more.
-- $1 query vector, $2 how many to fetch (more than wanted: some may not be visible), $3 least score, $4 how many to return, $5 generation id,
-- $6 collection id
WITH nearest AS MATERIALIZED (
    SELECT chunk_id, document_id, version, -(embedding <#> $1::halfvec) AS score
    FROM vec.g0 ORDER BY embedding <#> $1::halfvec LIMIT $2::integer
), visible AS (
    SELECT n.chunk_id, n.document_id, n.score
    FROM nearest n JOIN documents d ON d.id = n.document_id AND d.live_version = n.version
    WHERE n.score >= $3::float8
)
SELECT v.chunk_id, v.document_id, v.score::float8 AS score, f.fetched, f.worst::float8 AS worst,
    coalesce((SELECT c.active_generation = $5::bigint FROM collections c WHERE c.id = $6::bigint), false) AS is_active
FROM (SELECT count(*) AS fetched, min(score) AS worst FROM nearest) AS f LEFT JOIN visible v ON true
ORDER BY v.score DESC NULLS LAST, v.chunk_id LIMIT $4::integer
