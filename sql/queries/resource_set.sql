-- Sets a user's limits: null = the default, -1 = unlimited. $1 user id, $2 collections, $3 documents, $4 bytes, $5 operations
INSERT INTO resource_limits (user_id, max_collections, max_documents, max_bytes, max_operations)
VALUES ($1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::bigint)
ON CONFLICT (user_id) DO UPDATE SET max_collections = excluded.max_collections, max_documents = excluded.max_documents,
    max_bytes = excluded.max_bytes, max_operations = excluded.max_operations, updated_at = now()
