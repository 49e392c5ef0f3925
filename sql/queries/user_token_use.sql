-- Uses a refresh token up. No row: it cannot be used.
-- $1 jti, $2 user id, $3 SHA-256 of the token
UPDATE refresh_tokens SET revoked_at = now()
WHERE jti = $1::text AND user_id = $2::bigint AND token_hash = $3::text AND revoked_at IS NULL AND expires_at > now()
RETURNING jti
