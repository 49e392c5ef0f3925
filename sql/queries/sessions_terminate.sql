-- Ends what is left of an earlier attempt's database sessions. $1 task id of that attempt
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) AS terminated
FROM pg_stat_activity WHERE application_name = $1::text AND pid <> pg_backend_pid()
