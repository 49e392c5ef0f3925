-- The last statement before COMMIT of every transaction of an attempt. Raises OPF01 when the attempt lost its operation. (Model: fence.)
-- $1 operation uuid, $2 task id
SELECT fence($1::uuid, $2::uuid)
