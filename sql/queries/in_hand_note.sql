-- What an attempt is about to read. Not worth waiting for the disk: it must survive a process, not a power cut.
-- $1 task id, $2 operation uuid, $3 document ids (bigint[])
INSERT INTO in_hand (task_id, operation_uuid, document_ids) VALUES ($1::uuid, $2::uuid, $3::bigint[])
ON CONFLICT (task_id) DO UPDATE SET document_ids = excluded.document_ids
RETURNING set_config('synchronous_commit', 'off', true) AS commits
