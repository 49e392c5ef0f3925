-- Below which roots a user may index when SOURCE_ROOTS_FOR=granted. $1 user id
SELECT encode(root, 'hex') AS root FROM source_grants WHERE user_id = $1::bigint
