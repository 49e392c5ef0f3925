-- Every worker that has a row, alive or lapsed, with how many operations it holds; those of one make beside each other.
SELECT w.id, w.host, w.pid, w.version, to_iso(w.started_at) AS started_at, extract(epoch FROM now() - w.started_at)::float8 AS up_seconds,
    extract(epoch FROM w.expires_at - now())::float8 AS lease_seconds, w.draining, w.slots,
    (SELECT count(*) FROM operations o WHERE o.worker_id = w.id AND o.status = 'processing') AS busy,
    array_to_string(w.queues, ',') AS queues, array_to_string(w.models, ',') AS models, array_to_string(w.devices, ',') AS devices, w.url
FROM workers w ORDER BY w.queues, w.models, w.devices, w.started_at, w.id
