-- A document whose chunks stay and whose vectors come in several transactions. $1 generation id, $2 document id, $3 its live version
INSERT INTO staged_documents (generation_id, document_id, version, live_version, is_cut)
VALUES ($1::bigint, $2::bigint, $3::integer, $3::integer, false)
ON CONFLICT (generation_id, document_id) DO NOTHING
