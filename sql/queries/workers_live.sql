-- Whether anyone works, and on which devices.
SELECT count(*) AS workers, coalesce(string_agg(DISTINCT d, ',') FILTER (WHERE d LIKE 'cuda%' OR d LIKE 'gpu%'), '') AS gpus,
    count(DISTINCT w.id || d) FILTER (WHERE d LIKE 'cuda%' OR d LIKE 'gpu%') AS gpu_count
FROM workers w LEFT JOIN LATERAL unnest(w.devices) AS d ON true
WHERE w.expires_at > now()
