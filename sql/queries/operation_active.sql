-- The operation that holds a collection, if any. $1 collection id
SELECT uuid FROM operations WHERE collection_id = $1::bigint AND mutates AND status IN ('pending', 'processing')
