-- Some of what integrity_duplicates finds is to be read; the collection is locked and nobody's. $1 collection row id, $2 limit
UPDATE documents d SET status = 'pending', duplicate_of = NULL, updated_at = now() WHERE id IN (
    SELECT l.id FROM documents l WHERE l.collection_id = $1::bigint AND l.duplicate_of IS NOT NULL AND l.status = 'completed'
        AND NOT EXISTS (SELECT 1 FROM documents o WHERE o.id = l.duplicate_of)
    LIMIT $2::integer)
