-- $1 benchmark row id, $2 what was left out (JSON)
UPDATE benchmarks SET ignored = $2::jsonb WHERE id = $1::bigint
