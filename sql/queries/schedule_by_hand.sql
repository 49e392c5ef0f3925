-- Records a run that an operator asked for. $1 name, $2 who runs it, $3 seconds until it counts as lost
INSERT INTO system_tasks (name, worker, expires_at) VALUES ($1::text, $2::text, now() + make_interval(secs => $3::float8)) RETURNING id
