-- A document is done with. $1 generation id, $2 document id, $3 version, $4 the visible version it was made from, $5 its chunks were written for this
-- generation (boolean), $6 source, $7 problem, $8 chunks, $9 vectors, $10 reused, $11 embedded
INSERT INTO staged_documents (generation_id, document_id, version, live_version, is_cut, is_whole, source, problem, chunks, vectors, reused, embedded)
VALUES ($1::bigint, $2::bigint, $3::integer, $4::integer, $5::boolean, true, $6::text, $7::text, $8::integer, $9::bigint, $10::bigint, $11::bigint)
ON CONFLICT (generation_id, document_id) DO UPDATE SET
    version = excluded.version, live_version = excluded.live_version, is_cut = excluded.is_cut, is_whole = true, source = excluded.source,
    problem = excluded.problem, chunks = excluded.chunks, vectors = excluded.vectors, reused = excluded.reused, embedded = excluded.embedded
