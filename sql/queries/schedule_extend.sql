-- The runs of a worker go on. $1 ids (bigint[]), $2 seconds
UPDATE system_tasks SET expires_at = now() + make_interval(secs => $2::float8) WHERE id = ANY ($1::bigint[]) AND status = 'running'
