-- The attempt's own end, in a fenced transaction. $1 operation uuid, $2 task id, $3 completed | failed, $4 error class, $5 error message,
-- $6 result (JSON), $7 processed, $8 failed, $9 total
UPDATE operations SET
    status = $3::text, completed_at = now(), percent = CASE WHEN $3::text = 'completed' THEN 100 ELSE percent END,
    error_class = $4::text, error_message = $5::text, result = $6::jsonb,
    processed = coalesce($7::bigint, processed), failed = coalesce($8::bigint, failed), total = coalesce($9::bigint, total),
    current_file = NULL, meta = attempt_ended(meta, $3::text, $4::text, $5::text)
WHERE uuid = $1::uuid AND task_id = $2::uuid AND status = 'processing'
RETURNING type, attempt, user_id, collection_uuid, extract(epoch FROM now() - started_at)::float8 AS seconds
