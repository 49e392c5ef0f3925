-- A scheduled task that was switched off. $1 name
DELETE FROM schedules WHERE name = $1::text
