-- A new account. Taken name: users_username_key; taken address: users_email_key.
-- $1 username, $2 e-mail, $3 full name or null, $4 password hash, $5 superuser?
INSERT INTO users (username, email, full_name, password_hash, is_superuser)
VALUES ($1::text, $2::text, $3::text, $4::text, $5::boolean)
RETURNING id, username, email, full_name, password_hash, is_active, is_superuser, to_iso(created_at) AS created_at,
          to_iso(updated_at) AS updated_at, to_iso(last_login) AS last_login
