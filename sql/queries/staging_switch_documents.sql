-- The first half of the switch: documents see what was staged. The versions that go out of sight are noted under the generation that goes, to be
-- removed with it (it may have notes of the time when it was staged itself). $1 generation id, $2 the one that it replaces, or null
WITH moved AS (
    UPDATE documents d SET
        live_version = CASE WHEN s.source = 'lost' THEN 0 ELSE s.version END,
        chunk_count = s.chunks,
        status = CASE WHEN s.source = 'lost' THEN 'failed' ELSE d.status END,
        error_message = CASE WHEN s.source = 'lost' THEN s.problem ELSE d.error_message END,
        error_category = CASE WHEN s.source = 'lost' THEN 'permanent' ELSE d.error_category END,
        updated_at = now()
    FROM staged_documents s
    WHERE s.generation_id = $1::bigint AND s.document_id = d.id AND s.is_whole AND d.live_version > 0
        AND (s.version <> d.live_version OR s.source = 'lost')
    RETURNING s.document_id, s.live_version
)
INSERT INTO staged_documents (generation_id, document_id, version, live_version, is_cut, is_whole)
SELECT $2::bigint, document_id, live_version, live_version, true, true FROM moved WHERE $2::bigint IS NOT NULL
ON CONFLICT (generation_id, document_id) DO UPDATE SET version = excluded.version, live_version = excluded.live_version, is_cut = true
