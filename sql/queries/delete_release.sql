-- Operations outlive their collection; before the collection, in the order that everybody locks. $1 collection row id
UPDATE operations SET collection_id = NULL WHERE collection_id = $1::bigint
