-- Takes or renews a singleton's lease; a row comes back to its holder. $1 name, $2 holder, $3 seconds
INSERT INTO leases (name, holder, expires_at) VALUES ($1::text, $2::text, now() + make_interval(secs => $3::float8))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE leases.holder = excluded.holder OR leases.expires_at < now()
RETURNING name
