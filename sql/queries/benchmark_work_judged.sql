-- $1 benchmark row id
SELECT j.ordinal, j.document_uuid, j.relevance FROM benchmark_judged j WHERE j.benchmark_id = $1::bigint ORDER BY j.ordinal
