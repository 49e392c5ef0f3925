-- The last statement before COMMIT of every transaction of an attempt. Raises OPF01 when the attempt lost its operation.
-- $1 operation uuid, $2 task id
-- Model: fence.
SELECT fence($1::uuid, $2::uuid)
