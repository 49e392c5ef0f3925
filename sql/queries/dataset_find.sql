-- One dataset, if it is the user's or the user is a superuser. $1 uuid, $2 user id, $3 is a superuser
SELECT d.id AS row_id, d.uuid AS id, d.name, d.description, d.format, d.content_hash, d.query_count, d.judgment_count, to_iso(d.created_at) AS created_at
FROM benchmark_datasets d WHERE d.uuid = $1::uuid AND (d.owner_id = $2::bigint OR $3::boolean)
