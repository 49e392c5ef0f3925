-- $1 configuration row id, $2 metrics, $3 latency, $4 details (JSON)
UPDATE benchmark_configurations SET metrics = $2::jsonb, latency = $3::jsonb, details = $4::jsonb, completed_at = now() WHERE id = $1::bigint
