-- Which partition holds a collection's chunks; no row: it has none. $1 collection id
SELECT tableoid::regclass::text AS partition FROM chunks WHERE collection_id = $1::bigint LIMIT 1
