-- $1 collection row id, $2 only those that a retry may help (boolean)
SELECT count(*) FILTER (WHERE error_category = 'transient') AS transient,
    count(*) FILTER (WHERE error_category = 'permanent' AND NOT $2::boolean) AS permanent,
    count(*) FILTER (WHERE coalesce(error_category, 'unknown') = 'unknown') AS unknown,
    count(*) FILTER (WHERE NOT $2::boolean OR error_category IS DISTINCT FROM 'permanent') AS total
FROM documents WHERE collection_id = $1::bigint AND status = 'failed'
