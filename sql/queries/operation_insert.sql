-- Accepts an operation. Runs in the transaction that checked the rights; its COMMIT is durable and comes before the push.
-- $1 collection id, $2 user id, $3 type, $4 mutates, $5 queue, $6 config (JSON object, not empty), $7 max attempts
-- A busy collection: unique violation of operations_one_at_a_time.
WITH operation AS (
    INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, max_attempts)
    SELECT c.id, c.uuid, $2::bigint, $3::text, $4::boolean, coalesce(c.queue, $5::text), $6::jsonb, $7::integer
    FROM (SELECT $1::bigint AS id) AS wanted LEFT JOIN collections c ON c.id = wanted.id
    RETURNING uuid, collection_uuid, user_id, type, status, queue, attempt, created_at
), audited AS (
    INSERT INTO audit_log (user_id, collection_uuid, operation_uuid, action, details)
    SELECT o.user_id, o.collection_uuid, o.uuid, 'operation_' || o.type || '_pending',
        CASE WHEN $6::jsonb ? 'source_path' THEN jsonb_build_object('source_path', $6::jsonb -> 'source_path') ELSE '{}' END FROM operation o
)
SELECT uuid, collection_uuid, user_id, type, status, queue, attempt, to_iso(created_at) AS created_at FROM operation
