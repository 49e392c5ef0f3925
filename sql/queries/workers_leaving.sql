-- What is left of workers that were asked to end. $1 worker ids (text[])
SELECT w.id, w.expires_at < now() AS is_lapsed,
    (SELECT count(*) FROM operations o WHERE o.worker_id = w.id AND o.status = 'processing') AS busy
FROM workers w WHERE w.id = ANY ($1::text[]) ORDER BY w.id
