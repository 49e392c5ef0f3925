-- $1 owner, $2 name, $3 description or null, $4 format, $5 content hash, $6 number of queries, $7 number of judgments
INSERT INTO benchmark_datasets (owner_id, name, description, format, content_hash, query_count, judgment_count)
VALUES ($1::bigint, $2::text, $3::text, $4::text, $5::text, $6::integer, $7::integer)
RETURNING id AS row_id, uuid AS id, name, description, format, content_hash, query_count, judgment_count, to_iso(created_at) AS created_at
