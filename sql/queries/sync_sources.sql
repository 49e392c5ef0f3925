-- The sources of a collection, in the order in which they are followed. $1 collection id
SELECT id, source_type, source_path, source_config FROM sources WHERE collection_id = $1::bigint ORDER BY id
