-- How far an attempt is, beside its documents; unfenced on purpose but for the task id, as it decides nothing, and so not worth waiting for
-- the disk either. Counts never go back: documents are told of one by one when all of their group are committed. No row: the attempt lost its operation.
-- $1 operation uuid, $2 task id, $3 percent, $4 processed, $5 failed, $6 total, $7 current file
UPDATE operations SET percent = $3::real, processed = greatest(processed, $4::bigint), failed = greatest(failed, $5::bigint), total = $6::bigint, current_file = $7::text
WHERE uuid = $1::uuid AND task_id = $2::uuid AND status = 'processing'
RETURNING set_config('synchronous_commit', 'off', true) AS commits
