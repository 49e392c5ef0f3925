-- Vectors of staged documents in a generation's table, and those of nobody. $1 generation id
SELECT count(s.document_id) AS named, count(*) - count(s.document_id) AS other
FROM vec.g0 v
LEFT JOIN staged_documents s ON s.generation_id = $1::bigint AND s.document_id = v.document_id AND s.version = v.version AND s.is_whole
