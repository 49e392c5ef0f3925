-- The roots that a user may read, when SOURCE_ROOTS_FOR=granted.
-- $1 user id
SELECT encode(root, 'hex') AS root FROM source_grants WHERE user_id = $1::bigint ORDER BY root
