-- Workers that give signs of life, with what they have and hold.
SELECT w.id, w.host, w.slots, w.draining, to_jsonb(w.devices) AS devices, to_jsonb(w.models) AS models, to_jsonb(w.queues) AS queues,
    (SELECT count(*) FROM operations o WHERE o.worker_id = w.id AND o.status = 'processing') AS busy
FROM workers w WHERE w.expires_at > now() ORDER BY w.started_at, w.id LIMIT 1000
