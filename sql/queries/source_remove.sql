-- A source that has no documents any more. $1 source id, $2 collection id
DELETE FROM sources s WHERE s.id = $1::bigint AND s.collection_id = $2::bigint
    AND NOT EXISTS (SELECT 1 FROM documents d WHERE d.source_id = s.id)
