-- A scheduled task becomes known, or has another expression: due for the first time at the next time to come, whatever was missed before.
-- $1 name, $2 expression, $3 next due time in seconds since 1970
INSERT INTO schedules AS s (name, expression, next_due_at) VALUES ($1::text, $2::text, to_timestamp($3::bigint))
ON CONFLICT (name) DO UPDATE SET expression = excluded.expression, next_due_at = excluded.next_due_at, losses = 0
WHERE s.expression <> excluded.expression
