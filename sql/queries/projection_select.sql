-- Visible chunks among some, for a tooltip: where they are from and how they begin. $1 collection row id, $2 chunk ids (bigint[])
SELECT k.id AS chunk_id, d.uuid AS document_id, d.file_name, d.file_path, k.ordinal AS chunk_index, left(k.content, 500) AS content
FROM chunks k JOIN documents d ON d.id = k.document_id AND d.live_version = k.version
WHERE k.collection_id = $1::bigint AND k.id = ANY ($2::bigint[])
ORDER BY k.id
