-- Some chunks of a generation, the same for the same seed. $1 collection id, $2 seed (text), $3 how many
SELECT p.chunk_id, p.document_id, k.content
FROM (SELECT chunk_id, document_id FROM vec.g0 ORDER BY hashint8extended(chunk_id, hashtextextended($2::text, 0)) LIMIT $3::integer) AS p
JOIN chunks k ON k.collection_id = $1::bigint AND k.id = p.chunk_id
ORDER BY p.chunk_id
