-- A page of the audit log, newest first. One row at least, for `total`, which counts to 10,000.
-- $1 user id or null for everybody's, $2 action or null, $3 it is an act that is no operation's (boolean), $4 collection uuid or null,
-- $5 operation uuid or null, $6 from or null, $7 to or null, $8 only entries before this id or null, $9 limit, $10 offset
WITH found AS (
    SELECT a.id, a.user_id, a.action, a.collection_uuid, a.operation_uuid, a.details, a.created_at FROM audit_log a
    WHERE ($1::bigint IS NULL OR a.user_id = $1::bigint) AND ($2::text IS NULL OR a.action = $2::text)
      AND (NOT $3::boolean OR a.operation_uuid IS NULL) AND ($4::uuid IS NULL OR a.collection_uuid = $4::uuid)
      AND ($5::uuid IS NULL OR a.operation_uuid = $5::uuid) AND ($6::timestamptz IS NULL OR a.created_at >= $6::timestamptz)
      AND ($7::timestamptz IS NULL OR a.created_at < $7::timestamptz) AND ($8::bigint IS NULL OR a.id < $8::bigint)
    ORDER BY a.id DESC LIMIT 10001
), page AS (
    SELECT * FROM found ORDER BY id DESC LIMIT $9::integer OFFSET $10::bigint
)
SELECT t.total, p.id, p.user_id, u.username, p.action, p.collection_uuid AS collection_id, p.operation_uuid AS operation_id, p.details,
    to_iso(p.created_at) AS created_at
FROM (SELECT count(*) AS total FROM found) t LEFT JOIN page p ON true LEFT JOIN users u ON u.id = p.user_id
ORDER BY p.id DESC
