-- $1 username or e-mail address, in any case. A username beats an address that reads the same.
SELECT id, username, email, full_name, password_hash, is_active, is_superuser, to_iso(created_at) AS created_at,
       to_iso(updated_at) AS updated_at, to_iso(last_login) AS last_login
FROM users WHERE lower(username) = lower($1::text) OR lower(email) = lower($1::text)
ORDER BY lower(username) = lower($1::text) DESC LIMIT 1
