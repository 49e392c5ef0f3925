-- $1 operation uuid, $2 completed sources, $3 failed, $4 partial, $5 documents unchanged, $6 documents failed
UPDATE sync_runs SET completed_sources = $2::integer, failed_sources = $3::integer, partial_sources = $4::integer,
    documents_unchanged = $5::bigint, documents_failed = $6::bigint
WHERE operation_uuid = $1::uuid
RETURNING documents_added, documents_modified, documents_deleted
