-- Each second. No row: the lease lapsed and was swept; this process starts over with a new id. `draining` comes back true also when an operator
-- asked for it (worker_drain). $1 worker id, $2 lease seconds, $3 draining
UPDATE workers SET expires_at = now() + make_interval(secs => $2::float8), draining = draining OR $3::boolean
WHERE id = $1::text RETURNING id, draining
