-- One version of a document, or with $3 all versions below it. $1 document id, $2 version, $3 everything older (boolean)
DELETE FROM vec.g0 WHERE document_id = $1::bigint AND (version = $2::integer OR ($3::boolean AND version < $2::integer))
