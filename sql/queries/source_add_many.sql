-- source_add for requests that arrived together: one statement, one durable commit, each with its own row. Who gets no row (unknown collection, not
-- this user's, not ready, or the user has limits) was not accepted, and the caller asks for it alone; an error takes all of them back, and the caller asks for
-- each alone. Waits for nobody longer than 100 ms, so that one locked collection does not hold up the others. In the order of the collections'
-- numbers, so that two such statements cannot wait for each other. No collection comes twice.
-- $1 JSON list of {n, collection, user_id, source_type, source_path, source_config, additional_config}, $2 max attempts, $3 queue of those
-- collections that name none
WITH asked AS (
    SELECT a.* FROM jsonb_to_recordset($1::jsonb) AS a (n integer, collection uuid, user_id bigint, source_type text, source_path text,
        source_config jsonb, additional_config jsonb)
    WHERE set_config('lock_timeout', '100ms', true) IS NOT NULL
), wanted AS (
    SELECT a.*, c.* FROM asked a CROSS JOIN LATERAL (
        SELECT c.id AS collection_id, c.queue, c.owner_id, c.is_public FROM collections c
        WHERE c.uuid = a.collection AND c.owner_id = a.user_id AND c.deleted_at IS NULL AND c.status = 'ready'
          AND NOT EXISTS (SELECT 1 FROM resource_limits l WHERE l.user_id = a.user_id AND l.is_limiting)
        OFFSET 0) c -- keeps the planner, who takes the list to be long, from reading the whole table
    ORDER BY c.collection_id
), source AS (
    INSERT INTO sources (collection_id, source_type, source_path, source_config)
    SELECT w.collection_id, w.source_type, w.source_path, w.source_config FROM wanted w
    ON CONFLICT (collection_id, source_type, source_path) DO UPDATE SET source_config = excluded.source_config, updated_at = now()
    RETURNING id, collection_id
), operation AS (
    INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, max_attempts)
    SELECT w.collection_id, w.collection, w.user_id, 'append', true, coalesce(w.queue, $3::text),
        jsonb_build_object('source_id', s.id, 'source_type', w.source_type, 'source_config', w.source_config, 'source_path', w.source_path,
            'additional_config', w.additional_config), $2::integer
    FROM wanted w JOIN source s ON s.collection_id = w.collection_id ORDER BY w.collection_id
    RETURNING id, uuid, collection_id, collection_uuid, user_id, type, status, queue, attempt, config, created_at
), audited AS (
    INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details)
    SELECT o.user_id, o.collection_uuid, o.uuid, 'operation_append_pending', jsonb_build_object('source_path', o.config -> 'source_path') FROM operation o
), taken AS (
    UPDATE collections c SET status = 'processing', status_message = NULL, updated_at = now()
    WHERE c.id = ANY (ARRAY(SELECT o.collection_id FROM operation o)) AND c.status = 'ready' AND c.deleted_at IS NULL
    RETURNING c.id
)
SELECT w.n, o.uuid AS id, o.uuid, o.collection_uuid AS collection_id, o.collection_uuid, o.type, o.status, o.queue, o.attempt, o.config,
    NULL::text AS error_message, to_iso(o.created_at) AS created_at, NULL::text AS started_at, NULL::text AS completed_at, 0.0 AS progress,
    NULL::bigint AS eta, o.user_id, w.owner_id, w.is_public, CASE WHEN t.id IS NULL THEN fence(o.uuid, NULL) END AS taken
FROM operation o JOIN wanted w ON w.collection_id = o.collection_id LEFT JOIN taken t ON t.id = o.collection_id
