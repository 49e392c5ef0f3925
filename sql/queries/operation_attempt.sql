-- What an attempt needs to know of its operation; names the session after the task, so that a later attempt can end what is left of it.
-- No row: another attempt owns it, or it was cancelled. $1 operation uuid, $2 task id
SELECT set_config('application_name', $2::text, false) AS session, o.collection_id, o.collection_uuid, o.user_id, o.type, o.attempt,
    o.failures, o.max_attempts, o.processed, o.failed, o.config, o.meta #>> '{attempts,-2,reason}' AS last_reason
FROM operations o WHERE o.uuid = $1::uuid AND o.task_id = $2::uuid AND o.status = 'processing'
