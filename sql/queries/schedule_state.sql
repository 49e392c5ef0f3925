-- What is scheduled, with the database's time; one row at least, for that. Seconds since 1970.
SELECT floor(extract(epoch FROM now()))::bigint AS now, s.name, s.expression, floor(extract(epoch FROM s.next_due_at))::bigint AS next_due
FROM (SELECT 1) AS one LEFT JOIN schedules s ON true
