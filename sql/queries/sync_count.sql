-- $1 operation uuid, $2 documents added, $3 modified, $4 deleted
UPDATE sync_runs SET documents_added = documents_added + $2::bigint, documents_modified = documents_modified + $3::bigint,
    documents_deleted = documents_deleted + $4::bigint
WHERE operation_uuid = $1::uuid
