-- $1 operation uuid. The caller has checked the right. No row: already finished.
UPDATE operations SET status = 'cancelled', completed_at = now(), error_class = 'cancelled', error_message = NULL, current_file = NULL,
    meta = CASE WHEN status = 'pending' THEN meta ELSE jsonb_set(meta, '{attempts,-1}', coalesce(meta #> '{attempts,-1}', '{}') ||
        jsonb_build_object('ended', 'cancelled', 'ended_at', to_iso(now()))) END
WHERE uuid = $1::uuid AND status IN ('pending', 'processing')
RETURNING uuid, type, status, queue, collection_id, collection_uuid, user_id, worker_id, task_id, attempt, to_iso(completed_at) AS completed_at
