-- $1 operation uuid. The caller has checked the right. No row: already finished.
UPDATE operations SET status = 'cancelled', completed_at = now(), error_class = 'cancelled', error_message = NULL, current_file = NULL,
    meta = CASE WHEN status = 'processing' THEN attempt_ended(meta, 'cancelled', 'cancelled', NULL) ELSE meta END
WHERE uuid = $1::uuid AND status IN ('pending', 'processing')
RETURNING uuid, type, status, queue, collection_id, collection_uuid, user_id, worker_id, task_id, attempt, to_iso(completed_at) AS completed_at
