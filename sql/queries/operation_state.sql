-- How an operation stands, for an attempt whose COMMIT was not answered. $1 operation uuid
SELECT status, task_id, error_message FROM operations WHERE uuid = $1::uuid
