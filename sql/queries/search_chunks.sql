-- Texts and file names of hits, by their place in the list. The condition repeats what the join says: with it only the partitions that are
-- needed are planned, which is most of the time this takes. A chunk that lies in a larger one brings that one along, as `parent` of its metadata.
-- $1 collection row ids (bigint[]), $2 chunk ids (bigint[]), $3 with the text
SELECT h.place, CASE WHEN $3::boolean THEN k.content ELSE '' END AS content, k.ordinal,
    CASE WHEN p.id IS NULL THEN k.metadata ELSE coalesce(k.metadata, d.metadata, '{}') || jsonb_build_object('parent', jsonb_build_object(
        'chunk_id', p.id::text, 'text', CASE WHEN $3::boolean THEN p.content ELSE '' END, 'start', p.start_byte, 'end', p.end_byte)) END
    AS chunk_metadata, d.uuid AS document_id,
    d.file_name, d.file_path, d.chunk_count, d.metadata AS document_metadata
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS h (collection_id, chunk_id, place)
JOIN chunks k ON k.collection_id = h.collection_id AND k.id = h.chunk_id
JOIN documents d ON d.id = k.document_id
LEFT JOIN chunks p ON p.collection_id = k.collection_id AND p.document_id = k.document_id AND p.version = k.version
    AND p.ordinal = k.parent_ordinal AND p.is_parent AND p.collection_id = ANY ($1::bigint[])
WHERE k.collection_id = ANY ($1::bigint[])
ORDER BY h.place
