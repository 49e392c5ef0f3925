-- What is there to be staged, and how far that is. $1 collection id, $2 generation id or null
SELECT (SELECT count(*) FROM documents WHERE collection_id = $1::bigint AND live_version > 0) AS documents_total, s.*
FROM (SELECT count(*) AS staged, count(*) FILTER (WHERE source = 'unchanged') AS unchanged, count(*) FILTER (WHERE source = 'file') AS from_file,
        count(*) FILTER (WHERE source = 'chunks') AS from_chunks, count(*) FILTER (WHERE source = 'lost') AS lost,
        count(*) FILTER (WHERE source = 'skipped') AS skipped, coalesce(sum(vectors), 0)::bigint AS vectors,
        coalesce(sum(reused), 0)::bigint AS reused, coalesce(sum(embedded), 0)::bigint AS embedded,
        min(problem) FILTER (WHERE source = 'lost') AS problem
      FROM staged_documents WHERE generation_id = $2::bigint AND is_whole) AS s
