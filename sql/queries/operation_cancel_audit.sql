-- The two entries of a cancellation, in its transaction: who asked for it, and what became of the operation; and how long its last attempt took.
-- $1 operation uuid, $2 user who asked, $3 what it was: pending | processing
WITH o AS (
    SELECT uuid, collection_uuid, user_id, type, attempt, processed, failed, started_at, completed_at,
        round(extract(epoch FROM now() - (meta #>> '{attempts,-1,started_at}')::timestamptz), 6) AS seconds
    FROM operations WHERE uuid = $1::uuid
), measured AS (
    INSERT INTO operation_figures (operation_uuid, attempt, figures)
    SELECT uuid, attempt, jsonb_build_object('duration_seconds', seconds) FROM o WHERE $3::text = 'processing'
    ON CONFLICT (operation_uuid, attempt) DO NOTHING
)
INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details)
SELECT e.user_id, o.collection_uuid, o.uuid, e.action, e.details
FROM o CROSS JOIN LATERAL (VALUES
    ($2::bigint, 'operation_cancel_requested', jsonb_build_object('was', $3::text, 'type', o.type)),
    (o.user_id, 'operation_' || o.type || '_cancelled', jsonb_build_object(
        'duration', round(coalesce(extract(epoch FROM o.completed_at - o.started_at), 0), 6), 'documents_processed', o.processed,
        'documents_failed', o.failed, 'attempt', o.attempt, 'was', $3::text, 'cancelled_by', $2::bigint))) AS e (user_id, action, details)
