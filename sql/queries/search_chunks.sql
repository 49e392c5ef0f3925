-- Texts and file names of hits, by their place in the list. The condition repeats what the join says: with it only the partitions that are
-- needed are planned, which is most of the time this takes. $1 collection row ids (bigint[]), $2 chunk ids (bigint[]), $3 with the text
SELECT h.place, CASE WHEN $3::boolean THEN k.content ELSE '' END AS content, k.ordinal, k.metadata AS chunk_metadata, d.uuid AS document_id,
    d.file_name, d.file_path, d.chunk_count, d.metadata AS document_metadata
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS h (collection_id, chunk_id, place)
JOIN chunks k ON k.collection_id = h.collection_id AND k.id = h.chunk_id
JOIN documents d ON d.id = k.document_id
WHERE k.collection_id = ANY ($1::bigint[])
ORDER BY h.place
