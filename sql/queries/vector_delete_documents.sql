-- All versions of some documents. $1 document ids (bigint[])
DELETE FROM vec.g0 WHERE document_id = ANY ($1::bigint[])
