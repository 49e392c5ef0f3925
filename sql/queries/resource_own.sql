-- What a superuser has set for a user. No row: nothing. $1 user id
SELECT is_limiting, max_collections FROM resource_limits WHERE user_id = $1::bigint
