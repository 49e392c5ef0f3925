-- After an attempt gave its operation back or lost it with its worker, in the same transaction: its figures, and what the log says of it. (What made the
-- operation fail for good is audited as such.) $1 operation uuid, $2 how the operation was put back: retried | swept, or null when it failed,
-- $3 figures that the attempt told, or null
WITH attempt AS (
    SELECT o.uuid, o.user_id, o.collection_uuid, o.type, o.attempt, o.failures, o.not_before, o.processed, o.meta #> '{attempts,-1}' AS entry
    FROM operations o WHERE o.uuid = $1::uuid
), told AS (
    SELECT a.*, round(extract(epoch FROM now() - (a.entry ->> 'started_at')::timestamptz), 6) AS seconds FROM attempt a
), audited AS (
    INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details)
    SELECT t.user_id, t.collection_uuid, t.uuid, 'operation_' || t.type || '_' || $2::text, jsonb_build_object(
        'attempt', t.attempt, 'failures', t.failures, 'started_at', t.entry -> 'started_at', 'duration', t.seconds, 'documents_processed', t.processed,
        'ended', t.entry -> 'ended', 'error_class', t.entry -> 'error_class', 'reason', t.entry -> 'reason', 'next_try_at', to_iso(t.not_before))
    FROM told t WHERE $2::text IS NOT NULL
)
INSERT INTO operation_figures (operation_uuid, attempt, figures)
SELECT t.uuid, t.attempt, jsonb_build_object('duration_seconds', t.seconds) || coalesce($3::jsonb, '{}') FROM told t WHERE t.attempt > 0
ON CONFLICT (operation_uuid, attempt) DO UPDATE SET figures = operation_figures.figures || excluded.figures, recorded_at = now()
