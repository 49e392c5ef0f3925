-- Back to the defaults. $1 user id
DELETE FROM resource_limits WHERE user_id = $1::bigint
