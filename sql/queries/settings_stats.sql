-- $1 user id
SELECT (SELECT count(*) FROM collections WHERE deleted_at IS NULL AND owner_id = $1::bigint) AS collection_count,
    (SELECT coalesce(sum(document_count), 0) FROM collections WHERE deleted_at IS NULL AND owner_id = $1::bigint) AS file_count,
    round(pg_database_size(current_database()) / 1048576.0, 1) AS database_size_mb
