-- An operator's wish: what waits for its next attempt is due now; what runs is taken from its attempt, whose task loses it and changes nothing
-- more (fence()). No row: it is in another state or with another task by now. $1 operation uuid, $2 the task it was seen with, or null when it
-- was seen pending, $3 details of the audit row (JSON)
WITH requeued AS (
    UPDATE operations SET status = 'pending', not_before = now(), worker_id = NULL, current_file = NULL,
        meta = CASE WHEN status = 'processing' THEN attempt_ended(meta, 'handed_back', NULL, 'an operator took it back') ELSE meta END
    WHERE uuid = $1::uuid
      AND (($2::uuid IS NULL AND status = 'pending') OR (status = 'processing' AND task_id = $2::uuid))
    RETURNING uuid, collection_uuid, user_id, type, status, queue, attempt
), audited AS (
    INSERT INTO audit_log (collection_uuid, operation_uuid, action, details)
    SELECT collection_uuid, uuid, 'operation_requeued', $3::jsonb FROM requeued
)
SELECT uuid, collection_uuid, user_id, type, status, queue, attempt FROM requeued
