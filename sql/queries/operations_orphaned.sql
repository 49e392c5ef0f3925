-- Operations that a worker holds by its rows and knows nothing of: the answer to its claim got lost, or came too late.
-- $1 worker id, $2 task ids that it runs or has still to give back (uuid[])
-- Model: check orphans.
SELECT uuid, task_id FROM operations WHERE worker_id = $1::text AND status = 'processing' AND task_id <> ALL ($2::uuid[])
