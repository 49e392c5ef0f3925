-- Chunks that no document names any more. $1 collection row id, $2 limit
DELETE FROM chunks WHERE collection_id = $1::bigint
    AND id IN (SELECT id FROM chunks WHERE collection_id = $1::bigint ORDER BY id LIMIT $2::integer)
