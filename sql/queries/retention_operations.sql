-- Removes final, announced operations that ended long ago, with what only belongs to them: a bounded piece, in the order of their ids, and only
-- of what nobody holds. $1 days, $2 after this id, $3 limit. Answers how many went, the last id that was looked at and the uuids.
WITH old AS (
    SELECT id, uuid FROM operations
    WHERE id > $2::bigint AND status IN ('completed', 'failed', 'cancelled') AND announced_at IS NOT NULL
        AND completed_at < now() - make_interval(days => $1::integer)
    ORDER BY id LIMIT $3::integer FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM operations o USING old WHERE o.id = old.id RETURNING o.uuid
), figures AS (
    DELETE FROM operation_figures f USING old WHERE f.operation_uuid = old.uuid
), metrics AS (
    DELETE FROM operation_metrics m USING old WHERE m.operation_uuid = old.uuid
), hand AS (
    DELETE FROM in_hand h USING old WHERE h.operation_uuid = old.uuid
)
SELECT (SELECT count(*) FROM gone) AS removed, coalesce((SELECT max(id) FROM old), 0) AS last_id,
    coalesce((SELECT array_to_string(array_agg(uuid), ' ') FROM gone), '') AS uuids
