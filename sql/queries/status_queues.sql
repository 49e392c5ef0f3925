-- Operations by queue and state; those queues that somebody serves or that have work. `later`: their time has not come.
SELECT q.queue, count(o.id) FILTER (WHERE o.status = 'pending' AND o.not_before <= now()) AS due,
    count(o.id) FILTER (WHERE o.status = 'pending' AND o.not_before > now()) AS later,
    count(o.id) FILTER (WHERE o.status = 'processing') AS processing,
    extract(epoch FROM now() - min(o.created_at) FILTER (WHERE o.status = 'pending'))::float8 AS oldest_seconds,
    (SELECT count(*) FROM workers w WHERE q.queue = ANY (w.queues) AND w.expires_at > now() AND NOT w.draining) AS workers
FROM (SELECT unnest(ARRAY['fast', 'default', 'maintenance']) AS queue
      UNION SELECT unnest(queues) FROM workers
      UNION SELECT queue FROM operations WHERE status IN ('pending', 'processing')) q
LEFT JOIN operations o ON o.queue = q.queue AND o.status IN ('pending', 'processing')
GROUP BY q.queue ORDER BY q.queue
