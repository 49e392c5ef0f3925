-- Figures of one attempt. $1 operation uuid, $2 attempt, $3 names (text[]), $4 values (float8[])
INSERT INTO operation_metrics (operation_uuid, attempt, name, value)
SELECT $1::uuid, $2::integer, m.name, m.value FROM unnest($3::text[], $4::float8[]) AS m (name, value)
ON CONFLICT (operation_uuid, attempt, name) DO UPDATE SET value = excluded.value, recorded_at = now()
