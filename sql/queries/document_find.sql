-- One document, with what it takes to open its file. $1 document uuid
SELECT d.uuid AS id, c.uuid AS collection_id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.status, d.error_message,
    d.chunk_count, d.retry_count, to_iso(d.last_retry_at) AS last_retry_at, d.error_category, d.metadata, to_iso(d.created_at) AS created_at,
    to_iso(d.updated_at) AS updated_at,
    d.collection_id AS collection_row_id, encode(d.path, 'hex') AS path_hex
FROM documents d JOIN collections c ON c.id = d.collection_id
WHERE d.uuid = $1::uuid
