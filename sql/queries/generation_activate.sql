-- $1 collection id, $2 generation id
UPDATE collections SET active_generation = $2::bigint, updated_at = now() WHERE id = $1::bigint
