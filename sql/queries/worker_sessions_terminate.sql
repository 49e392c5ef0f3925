-- Ends the database sessions of lapsed workers (lease_session_name() says how they are called): one that is frozen may hold locks in the middle of a
-- transaction. $1 worker ids (text[])
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) AS terminated
FROM pg_stat_activity a, unnest($1::text[]) AS w (id)
WHERE a.application_name LIKE 'opstream-worker %' AND right(a.application_name, 12) = right(w.id, 12) AND a.pid <> pg_backend_pid()
