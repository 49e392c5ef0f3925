-- $1 configuration row id, then one array each: $2 ordinals, $3 documents ("{uuid,…}"), $4 scores ("{…}"), $5 relevant, $6 relevant returned, $7 judged
-- returned, $8 precision, $9 recall, $10 reciprocal rank, $11 nDCG, $12 average precision, $13 search ms, $14 embedding ms
INSERT INTO benchmark_results (configuration_id, ordinal, documents, scores, relevant, relevant_returned, judged_returned, "precision", recall, mrr, ndcg,
    map, search_ms, embedding_ms)
SELECT $1::bigint, r.ordinal, r.documents::uuid[], r.scores::real[], r.relevant, r.relevant_returned, r.judged_returned, r."precision", r.recall, r.mrr, r.ndcg,
    r.map, r.search_ms, r.embedding_ms
FROM unnest($2::integer[], $3::text[], $4::text[], $5::integer[], $6::integer[], $7::integer[], $8::float8[], $9::float8[], $10::float8[], $11::float8[],
            $12::float8[], $13::float8[], $14::float8[])
    AS r (ordinal, documents, scores, relevant, relevant_returned, judged_returned, "precision", recall, mrr, ndcg, map, search_ms, embedding_ms)
