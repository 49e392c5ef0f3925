-- A page of a collection's sync runs, newest first; one row comes back even for an empty page: it carries the total.
-- $1 collection row id, $2 limit, $3 offset
SELECT t.total, p.*
FROM (SELECT count(*) AS total FROM sync_runs WHERE collection_id = $1::bigint) t
LEFT JOIN LATERAL (
    SELECT id, collection_uuid AS collection_id, operation_uuid AS operation_id, triggered_by, to_iso(started_at) AS started_at,
        to_iso(completed_at) AS completed_at, status, expected_sources, completed_sources, failed_sources, partial_sources, documents_added,
        documents_modified, documents_deleted, documents_unchanged, documents_failed, error_summary
    FROM sync_runs WHERE collection_id = $1::bigint ORDER BY id DESC LIMIT $2::integer OFFSET $3::bigint
) p ON true
