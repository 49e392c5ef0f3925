-- The result, in the transaction that writes the arrays. $1 projection row id, $2 generation id or null, $3 documents and $4 vectors of the collection when it
-- was read, $5 when that was, $6 points, $7 dimensions of the vectors, $8 legend (JSON), $9 figures (JSON). No row: deleted meanwhile.
UPDATE projections SET generation_id = $2::bigint, document_count = $3::bigint, vector_count = $4::bigint, read_at = $5::timestamptz, point_count = $6::integer,
    dim = $7::integer, legend = $8::jsonb, figures = $9::jsonb, completed_at = now()
WHERE id = $1::bigint RETURNING id
