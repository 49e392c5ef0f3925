-- $1 collection id, $2 document id, $3 version, $4 everything older as well (boolean)
DELETE FROM chunks WHERE collection_id = $1::bigint AND document_id = $2::bigint
    AND (version = $3::integer OR ($4::boolean AND version < $3::integer))
