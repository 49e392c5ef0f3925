-- An attempt that ends orderly has nothing in hand. $1 task id
DELETE FROM in_hand WHERE task_id = $1::uuid
