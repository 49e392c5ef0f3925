-- $1 collection row id, $2 source id, $3 config (JSON object): its members take the place of those of the same name
UPDATE sources SET source_config = source_config || $3::jsonb, updated_at = now() WHERE collection_id = $1::bigint AND id = $2::bigint RETURNING id
