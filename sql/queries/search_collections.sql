-- What a search must know of its collections; those that are unknown or deleted are missing. $1 collection uuids (uuid[])
SELECT c.id, c.uuid, c.name, c.owner_id, c.is_public, c.embedding_model, g.model AS generation_model
FROM collections c LEFT JOIN generations g ON g.id = c.active_generation
WHERE c.uuid = ANY ($1::uuid[]) AND c.deleted_at IS NULL
