-- The same by differences, cheap, for each batch. $1 collection id, $2 documents, $3 vectors, $4 bytes, $5 failed documents
UPDATE collections SET
    document_count = greatest(0, document_count + $2::bigint), vector_count = greatest(0, vector_count + $3::bigint),
    total_size_bytes = greatest(0, total_size_bytes + $4::bigint), error_count = greatest(0, error_count + $5::bigint), updated_at = now()
WHERE id = $1::bigint
RETURNING document_count, vector_count, total_size_bytes
