-- The ends of some attempts with their audit rows (that the attempt began is told with its end, as a row a claim would cost too much) and figures, in
-- one statement. It fences itself: it locks the rows and finds them only while the
-- tasks hold them, so an attempt without a row has lost its operation; COMMIT follows at once. Answers what the last events say (operation_final.sql).
-- Arrays of equal length: $1 operation uuids, $2 task ids, $3 completed | failed, $4 error classes, $5 error messages, $6 results (JSON), $7 processed,
-- $8 failed, $9 totals, $10 details of the audit rows (JSON), $11 figures (JSON)
-- Model: end.
-- (IS NOT DISTINCT FROM keeps the planner from walking the partial index of that status, which is small by its statistics and full of what has left it.)
WITH given AS (
    SELECT g.* FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::bigint[], $8::bigint[], $9::bigint[],
        $10::jsonb[], $11::jsonb[]) AS g (uuid, task_id, status, error_class, error_message, result, processed, failed, total, details, figures)
), ended AS (
    UPDATE operations o SET
        status = g.status, completed_at = now(), percent = CASE WHEN g.status = 'completed' THEN 100 ELSE o.percent END,
        error_class = g.error_class, error_message = g.error_message, result = g.result,
        processed = coalesce(g.processed, o.processed), failed = coalesce(g.failed, o.failed), total = coalesce(g.total, o.total),
        current_file = NULL, meta = attempt_ended(o.meta, g.status, g.error_class, g.error_message)
    FROM given g WHERE o.uuid = g.uuid AND o.task_id = g.task_id AND o.status IS NOT DISTINCT FROM 'processing'
    RETURNING o.uuid, o.type, o.status, o.attempt, o.user_id, o.collection_uuid, o.percent, o.processed, o.failed, o.total, o.error_class,
        o.error_message, o.result, g.details, g.figures, o.meta #>> '{attempts,-1,started_at}' AS begun_at
), audited AS (
    INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details, created_at)
    SELECT e.user_id, e.collection_uuid, e.uuid, 'operation_' || e.type || '_' || s.status, s.details, s.created_at
    FROM ended e CROSS JOIN LATERAL (VALUES
        ('processing', jsonb_build_object('attempt', e.attempt), coalesce(e.begun_at::timestamptz, now())), (e.status, e.details, now())
    ) AS s (status, details, created_at)
), measured AS (
    INSERT INTO operation_figures (operation_uuid, attempt, figures)
    SELECT uuid, attempt, figures FROM ended
    ON CONFLICT (operation_uuid, attempt) DO UPDATE SET figures = excluded.figures, recorded_at = now()
)
SELECT uuid, type, status, attempt, user_id, collection_uuid, percent, processed, failed, total, error_class, error_message, result FROM ended
