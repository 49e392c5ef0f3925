-- Takes a due time and records the run, at once and for one alone: who saw another next_due_at gets no row.
-- $1 name, $2 the next due time that was seen, $3 the due time that this run is for, $4 the next one after it (all seconds since 1970),
-- $5 due times missed, $6 worker, $7 seconds until the run counts as lost
WITH taken AS (
    UPDATE schedules SET last_due_at = to_timestamp($3::bigint), next_due_at = to_timestamp($4::bigint)
    WHERE name = $1::text AND floor(extract(epoch FROM next_due_at))::bigint = $2::bigint
    RETURNING name, last_due_at
)
INSERT INTO system_tasks (name, due_at, missed, worker, expires_at)
SELECT name, last_due_at, $5::integer, $6::text, now() + make_interval(secs => $7::float8) FROM taken
RETURNING id
