-- Refresh tokens that are good for nothing: run out, or revoked long ago (until then a second use is told from a forgery). $1 days, $2 limit
WITH old AS (
    SELECT jti FROM refresh_tokens WHERE expires_at < now() OR revoked_at < now() - make_interval(days => $1::integer)
    LIMIT $2::integer FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM refresh_tokens t USING old WHERE t.jti = old.jti RETURNING 1
)
SELECT count(*) AS removed FROM gone
