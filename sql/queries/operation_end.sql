-- The attempt's own end with its audit row and figures, in one statement. It fences itself: it locks the row and finds it only while the task holds
-- it, so no row means that the attempt lost its operation; COMMIT follows at once. $1 operation uuid, $2 task id, $3 completed | failed,
-- $4 error class, $5 error message, $6 result (JSON), $7 processed, $8 failed, $9 total, $10 details of the audit row (JSON),
-- $11 names of the figures (text[]), $12 their values (float8[])
WITH ended AS (
    UPDATE operations SET
        status = $3::text, completed_at = now(), percent = CASE WHEN $3::text = 'completed' THEN 100 ELSE percent END,
        error_class = $4::text, error_message = $5::text, result = $6::jsonb,
        processed = coalesce($7::bigint, processed), failed = coalesce($8::bigint, failed), total = coalesce($9::bigint, total),
        current_file = NULL, meta = attempt_ended(meta, $3::text, $4::text, $5::text)
    WHERE uuid = $1::uuid AND task_id = $2::uuid AND status = 'processing'
    RETURNING uuid, type, attempt, user_id, collection_uuid
), audited AS (
    INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details)
    SELECT user_id, collection_uuid, uuid, 'operation_' || type || '_' || $3::text, $10::jsonb FROM ended
), measured AS (
    INSERT INTO operation_metrics (operation_uuid, attempt, name, value)
    SELECT e.uuid, e.attempt, m.name, m.value FROM ended e, unnest($11::text[], $12::float8[]) AS m (name, value)
    ON CONFLICT (operation_uuid, attempt, name) DO UPDATE SET value = excluded.value, recorded_at = now()
)
SELECT uuid FROM ended
