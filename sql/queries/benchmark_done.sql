-- $1 benchmark row id
UPDATE benchmarks SET outcome = 'completed', completed_at = now() WHERE id = $1::bigint
