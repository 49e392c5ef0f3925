-- Accepts one more source of a collection: the source, its APPEND, and the collection becomes busy, all in one statement that is durable when it is
-- answered. No row: the collection is unknown, not this user's, or in no state for it; the caller finds out which. A busy collection: unique
-- violation of operations_one_at_a_time. Whoever changed the collection's state meanwhile wins: fence() raises OPF01 and takes everything back.
-- Locks the operation before the collection, as everybody does. Answers what operation_view_one does, and what a push needs.
-- $1 collection uuid, $2 user id, $3 source type, $4 path as the client wrote it, $5 source config (JSON), $6 additional config (JSON or null),
-- $7 max attempts, $8 queue of those collections that name none, $9 the user's limits have been looked at (boolean); if not, a user who has
-- some gets no row
WITH wanted AS (
    SELECT c.id, c.uuid, c.queue, c.owner_id, c.is_public FROM collections c
    WHERE c.uuid = $1::uuid AND c.owner_id = $2::bigint AND c.deleted_at IS NULL AND c.status IN ('pending', 'ready')
      AND ($9::boolean OR NOT EXISTS (SELECT 1 FROM resource_limits l WHERE l.user_id = c.owner_id AND l.is_limiting))
), source AS (
    INSERT INTO sources (collection_id, source_type, source_path, source_config)
    SELECT w.id, $3::text, $4::text, $5::jsonb FROM wanted w
    ON CONFLICT (collection_id, source_type, source_path) DO UPDATE SET source_config = excluded.source_config, updated_at = now()
    RETURNING id
), operation AS (
    INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, max_attempts)
    SELECT w.id, w.uuid, $2::bigint, 'append', true, coalesce(w.queue, $8::text), jsonb_build_object('source_id', s.id, 'source_type', $3::text,
        'source_config', $5::jsonb, 'source_path', $4::text, 'additional_config', coalesce($6::jsonb, '{}')), $7::integer
    FROM wanted w CROSS JOIN source s
    RETURNING id, uuid, collection_id, collection_uuid, user_id, type, status, queue, attempt, config, created_at
), audited AS (
    INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details)
    SELECT o.user_id, o.collection_uuid, o.uuid, 'operation_append_pending', jsonb_build_object('source_path', $4::text) FROM operation o
), taken AS (
    UPDATE collections c SET status = 'processing', status_message = NULL, updated_at = now()
    FROM operation o WHERE c.id = o.collection_id AND c.status IN ('pending', 'ready') AND c.deleted_at IS NULL
    RETURNING c.id
)
SELECT o.uuid AS id, o.uuid, o.collection_uuid AS collection_id, o.collection_uuid, o.type, o.status, o.queue, o.attempt, o.config,
    NULL::text AS error_message, to_iso(o.created_at) AS created_at, NULL::text AS started_at, NULL::text AS completed_at, 0.0 AS progress,
    NULL::bigint AS eta, o.user_id, w.owner_id, w.is_public, CASE WHEN t.id IS NULL THEN fence(o.uuid, NULL) END AS taken
FROM operation o CROSS JOIN wanted w LEFT JOIN taken t ON true
