-- Counts a collection's visible chunks and keeps what it found; no row: the collection is gone. The histogram has ten bars of one width, up
-- to the largest chunk. $1 collection row id
WITH live AS MATERIALIZED (
    SELECT k.document_id, k.tokens, k.is_parent, k.metadata ->> 'chunking' AS how
    FROM chunks k JOIN documents d ON d.id = k.document_id AND d.live_version = k.version
    WHERE k.collection_id = $1::bigint AND d.collection_id = $1::bigint
), small AS (
    SELECT count(*) AS chunks, min(tokens) AS least, avg(tokens) AS mean, max(tokens) AS most, sum(tokens) AS total,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY tokens) AS p50, percentile_disc(0.95) WITHIN GROUP (ORDER BY tokens) AS p95
    FROM live WHERE NOT is_parent
), large AS (
    SELECT count(*) AS chunks, avg(tokens) AS mean, max(tokens) AS most FROM live WHERE is_parent
), per_document AS (
    SELECT count(*) AS documents, min(chunks) AS least, avg(chunks) AS mean, max(chunks) AS most
    FROM (SELECT count(*) AS chunks FROM live WHERE NOT is_parent GROUP BY document_id) x
), bars AS (
    SELECT (l.tokens - 1) / ((s.most + 9) / 10) AS bar, (s.most + 9) / 10 AS width, count(*) AS chunks
    FROM live l CROSS JOIN small s WHERE NOT l.is_parent GROUP BY 1, 2
), ways AS (
    SELECT coalesce(l.how, c.chunking_strategy, 'recursive') AS how, count(*) AS chunks
    FROM live l CROSS JOIN collections c WHERE c.id = $1::bigint AND NOT l.is_parent GROUP BY 1
)
INSERT INTO collection_statistics AS kept (collection_id, chunking, changed_at)
SELECT c.id, jsonb_build_object(
    'chunks', s.chunks, 'parents', p.chunks, 'documents', d.documents,
    'tokens', jsonb_build_object('min', coalesce(s.least, 0), 'avg', round(coalesce(s.mean, 0), 1), 'max', coalesce(s.most, 0),
        'p50', coalesce(s.p50, 0), 'p95', coalesce(s.p95, 0), 'total', coalesce(s.total, 0)),
    'parent_tokens', jsonb_build_object('avg', round(coalesce(p.mean, 0), 1), 'max', coalesce(p.most, 0)),
    'chunks_per_document', jsonb_build_object('min', coalesce(d.least, 0), 'avg', round(coalesce(d.mean, 0), 1), 'max', coalesce(d.most, 0)),
    'histogram', coalesce((SELECT jsonb_agg(jsonb_build_object('from', bar * width + 1, 'to', (bar + 1) * width, 'count', chunks) ORDER BY bar)
                           FROM bars), '[]'),
    'by_strategy', coalesce((SELECT jsonb_object_agg(how, chunks) FROM ways), '{}')), c.updated_at
FROM collections c CROSS JOIN small s CROSS JOIN large p CROSS JOIN per_document d
WHERE c.id = $1::bigint AND c.deleted_at IS NULL
ON CONFLICT (collection_id) DO UPDATE SET chunking = EXCLUDED.chunking, changed_at = EXCLUDED.changed_at, computed_at = now()
RETURNING kept.chunking, to_iso(kept.computed_at) AS computed_at
