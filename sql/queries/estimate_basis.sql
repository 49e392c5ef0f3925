-- What an estimate starts from: the collection as it is, the model's dimension if any generation knows it, and what the user's newest operations
-- took. $1 collection id, $2 user id, $3 model or null for its own, $4 source id or null: what of the collection came from it
SELECT c.document_count, c.total_size_bytes, c.vector_count, c.chunk_size, c.chunk_overlap, c.embedding_model, c.quantization,
    (SELECT g.dim FROM generations g WHERE g.model = coalesce($3::text, c.embedding_model) ORDER BY g.collection_id = c.id DESC, g.id DESC LIMIT 1) AS dim,
    past.operations, past.tokens, past.chunks, past.seconds,
    (SELECT count(*) FROM workers w, unnest(w.devices) AS d WHERE w.expires_at > now() AND d LIKE 'cuda%') AS gpus,
    (SELECT count(*) FROM documents d WHERE d.source_id = $4::bigint AND d.status = 'completed') AS source_documents,
    (SELECT coalesce(sum(d.file_size), 0)::bigint FROM documents d WHERE d.source_id = $4::bigint AND d.status = 'completed') AS source_bytes
FROM collections c CROSS JOIN LATERAL (
    SELECT count(*) AS operations, sum((f.figures ->> 'tokens')::bigint)::bigint AS tokens, sum((f.figures ->> 'chunks')::bigint)::bigint AS chunks,
        sum((f.figures ->> 'duration_seconds')::float8) AS seconds
    FROM (SELECT uuid, type FROM operations WHERE user_id = $2::bigint ORDER BY created_at DESC, id DESC LIMIT 200) o
    JOIN operation_figures f ON f.operation_uuid = o.uuid
    WHERE o.type IN ('index', 'append', 'sync', 'reindex') AND (f.figures ->> 'tokens')::bigint > 0
) past
WHERE c.id = $1::bigint
