-- The names of those who watch an operation.
-- $1 user ids (bigint[])
SELECT id, username FROM users WHERE id = ANY ($1::bigint[])
