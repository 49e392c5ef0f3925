-- Is there a user already?
SELECT EXISTS (SELECT FROM users) AS any
