-- Some of what integrity_chunks finds; the collection is locked and nobody's. $1 collection row id, $2 limit
DELETE FROM chunks WHERE collection_id = $1::bigint AND id IN (
    SELECT k.id FROM chunks k LEFT JOIN documents d ON d.id = k.document_id AND d.collection_id = k.collection_id
    WHERE k.collection_id = $1::bigint AND (d.id IS NULL OR (k.version <> d.live_version
            AND NOT (d.status = 'processing' AND k.version = d.next_version)
            AND NOT EXISTS (SELECT 1 FROM generations g WHERE g.collection_id = $1::bigint AND g.state <> 'active')))
    LIMIT $2::integer)
