-- Rows that a collection's readers see. $1 collection id
SELECT vector_count FROM collections WHERE id = $1::bigint
