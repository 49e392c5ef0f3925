-- $1 source id, $2 collection id
SELECT id, source_type, source_path, source_config FROM sources WHERE id = $1::bigint AND collection_id = $2::bigint
