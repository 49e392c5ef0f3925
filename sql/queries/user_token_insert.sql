-- $1 jti ("<family>.<random>"), $2 user id, $3 SHA-256 of the token, $4 expiry in seconds since 1970
INSERT INTO refresh_tokens (jti, user_id, token_hash, expires_at)
VALUES ($1::text, $2::bigint, $3::text, to_timestamp($4::bigint))
