-- Gone for every reader, and its name is free. $1 collection row id
UPDATE collections SET deleted_at = now(), updated_at = now() WHERE id = $1::bigint AND deleted_at IS NULL RETURNING id
