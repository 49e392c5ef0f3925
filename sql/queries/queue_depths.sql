-- Operations waiting and running, by queue, for Prometheus; the three usual queues are always there.
SELECT q.queue, count(o.id) FILTER (WHERE o.status = 'pending') AS pending,
       count(o.id) FILTER (WHERE o.status = 'processing') AS processing,
       coalesce(extract(epoch FROM now() - min(o.created_at) FILTER (WHERE o.status = 'pending')), 0)::float8 AS oldest_seconds
FROM (SELECT unnest(ARRAY['fast', 'default', 'maintenance']) AS queue
      UNION SELECT DISTINCT queue FROM operations WHERE status IN ('pending', 'processing')) q
LEFT JOIN operations o ON o.queue = q.queue AND o.status IN ('pending', 'processing')
GROUP BY q.queue
