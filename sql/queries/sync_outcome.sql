-- $1 operation uuid, $2 completed sources, $3 failed, $4 partial, $5 files that are there, $6 documents failed
-- What is there and neither new nor changed nor failed is unchanged; counted so that it fits whatever number of attempts it took.
UPDATE sync_runs SET completed_sources = $2::integer, failed_sources = $3::integer, partial_sources = $4::integer,
    documents_unchanged = greatest(0, $5::bigint - documents_added - documents_modified - $6::bigint), documents_failed = $6::bigint
WHERE operation_uuid = $1::uuid
RETURNING documents_added, documents_modified, documents_deleted, documents_unchanged
