-- Visible chunks of one generation, chosen by a hash of their number so that the same seed chooses the same ones, with what each is coloured by.
-- $1 seed, $2 how many, $3 color_by: document | source | type | none
SELECT v.chunk_id,
    CASE $3::text WHEN 'document' THEN d.uuid::text WHEN 'source' THEN coalesce(d.source_id::text, '') WHEN 'type' THEN t.kind ELSE '' END AS label_key,
    CASE $3::text WHEN 'document' THEN d.file_name WHEN 'source' THEN coalesce(s.source_path, 'removed source') WHEN 'type' THEN t.kind ELSE 'all' END AS label
FROM vec.g0 v JOIN documents d ON d.id = v.document_id AND d.live_version = v.version
LEFT JOIN sources s ON s.id = d.source_id AND $3::text = 'source'
CROSS JOIN LATERAL (SELECT coalesce(nullif(split_part(d.mime_type, ';', 1), ''), lower(substring(d.file_name FROM '\.([^./]+)$')), 'unknown') AS kind) t
ORDER BY hashint8extended(v.chunk_id, $1::bigint), v.chunk_id LIMIT $2::integer
