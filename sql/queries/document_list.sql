-- A page of a collection's documents, in the order they were found. One row comes back even for an empty page: it carries the total.
-- $1 collection row id, $2 states (text[]) or null for all but deleted ones, $3 limit, $4 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM documents d
      WHERE d.collection_id = $1::bigint AND d.status = ANY (coalesce($2::text[], '{pending,processing,completed,failed}'))) t
LEFT JOIN LATERAL (
    SELECT d.uuid AS id, c.uuid AS collection_id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.status, d.error_message,
    d.chunk_count, d.retry_count, to_iso(d.last_retry_at) AS last_retry_at, d.error_category, d.metadata, to_iso(d.created_at) AS created_at,
    to_iso(d.updated_at) AS updated_at
    FROM documents d JOIN collections c ON c.id = d.collection_id
    WHERE d.collection_id = $1::bigint AND d.status = ANY (coalesce($2::text[], '{pending,processing,completed,failed}'))
    ORDER BY d.id LIMIT $3::integer OFFSET $4::bigint
) p ON true
