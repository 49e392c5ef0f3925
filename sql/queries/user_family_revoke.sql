-- Revokes every token that came from the same login as one of them.
-- $1 user id, $2 SHA-256 of that one
WITH revoked AS (
    UPDATE refresh_tokens t SET revoked_at = now()
    FROM refresh_tokens known
    WHERE known.token_hash = $2::text AND known.user_id = $1::bigint
      AND t.user_id = known.user_id AND split_part(t.jti, '.', 1) = split_part(known.jti, '.', 1) AND t.revoked_at IS NULL
    RETURNING t.user_id
)
INSERT INTO audit_log (user_id, action, details)
SELECT r.user_id, 'tokens_revoked', jsonb_build_object('tokens', count(*)) FROM revoked r GROUP BY r.user_id
