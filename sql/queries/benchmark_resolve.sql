-- Which documents of a collection a dataset's names are: a UUID, else a path, else a file name. Fills the benchmark's judgments; a document with
-- the content of another stands for it, as only one of them has vectors; two names of one document: the higher grade counts.
-- Answers how many names were not found or meant several documents, with the first of each.
-- $1 benchmark row id, $2 dataset row id, $3 collection row id
WITH names AS MATERIALIZED (
    SELECT DISTINCT j.kind, j.document FROM benchmark_judgments j WHERE j.dataset_id = $2::bigint
), found AS MATERIALIZED (
    SELECT n.kind, n.document, d.id, d.duplicate_of, 1 AS way
    FROM names n JOIN documents d ON d.uuid::text = lower(n.document)
    WHERE n.kind IN ('any', 'document_id') AND d.collection_id = $3::bigint AND d.status <> 'deleted'
    UNION ALL
    SELECT n.kind, n.document, d.id, d.duplicate_of, 2
    FROM names n JOIN documents d ON d.file_path = n.document
    WHERE n.kind IN ('any', 'path') AND d.collection_id = $3::bigint AND d.status <> 'deleted'
    UNION ALL
    SELECT n.kind, n.document, d.id, d.duplicate_of, 3
    FROM names n JOIN documents d ON d.file_name = n.document
    WHERE n.kind IN ('any', 'file_name') AND d.collection_id = $3::bigint AND d.status <> 'deleted'
), meant AS MATERIALIZED (
    SELECT f.kind, f.document, min(f.way) AS way FROM found f GROUP BY f.kind, f.document
), resolved AS MATERIALIZED (
    SELECT f.kind, f.document, count(DISTINCT coalesce(f.duplicate_of, f.id)) AS documents, min(coalesce(f.duplicate_of, f.id)) AS id
    FROM found f JOIN meant m USING (kind, document, way) GROUP BY f.kind, f.document
), judged AS (
    INSERT INTO benchmark_judged (benchmark_id, ordinal, document_uuid, relevance)
    SELECT $1::bigint, j.ordinal, d.uuid, max(j.relevance)
    FROM benchmark_judgments j JOIN resolved r USING (kind, document) JOIN documents d ON d.id = r.id
    WHERE j.dataset_id = $2::bigint AND r.documents = 1
    GROUP BY j.ordinal, d.uuid
    RETURNING relevance
), unknown AS (
    SELECT n.document FROM names n WHERE NOT EXISTS (SELECT FROM resolved r WHERE r.kind = n.kind AND r.document = n.document)
), ambiguous AS (
    SELECT r.document FROM resolved r WHERE r.documents > 1
)
SELECT (SELECT count(*) FROM judged) AS judged, (SELECT count(*) FROM judged WHERE relevance > 0) AS relevant,
    (SELECT count(*) FROM unknown) AS unknown, (SELECT count(*) FROM ambiguous) AS ambiguous,
    (SELECT string_agg('''' || u.document || '''', ', ') FROM (SELECT document FROM unknown ORDER BY document LIMIT 3) u) AS first_unknown,
    (SELECT string_agg('''' || a.document || '''', ', ') FROM (SELECT document FROM ambiguous ORDER BY document LIMIT 3) a) AS first_ambiguous,
    (SELECT jsonb_build_object('count', (SELECT count(*) FROM unknown), 'first', jsonb_agg(u.document))
     FROM (SELECT document FROM unknown ORDER BY document LIMIT 10) u) AS ignored
