-- The next documents of a source, locked: first its duplicates, then the others, so that what is left when the removal stops half-way is whole.
-- $1 source id, $2 duplicates (boolean), $3 after id, $4 limit
SELECT id, live_version, file_size, status FROM documents
WHERE source_id = $1::bigint AND (duplicate_of IS NOT NULL) = $2::boolean AND id > $3::bigint
ORDER BY id LIMIT $4::integer FOR UPDATE
