-- The rest, with its sources. $1 collection row id
DELETE FROM collections WHERE id = $1::bigint AND deleted_at IS NOT NULL
