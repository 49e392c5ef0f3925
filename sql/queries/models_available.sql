-- What live workers can embed with.
SELECT DISTINCT unnest(models) AS model FROM workers WHERE expires_at > now() AND NOT draining ORDER BY 1
