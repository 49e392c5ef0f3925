-- Generations in `building` that nobody builds any more: their operation ended minutes ago, and the leftovers chore has had its time. No parameters
WITH lost AS (
    SELECT g.id FROM generations g JOIN collections c ON c.id = g.collection_id AND c.deleted_at IS NULL
    WHERE g.state = 'building' AND to_regclass('vec.g' || g.id) IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM operations o WHERE o.uuid = g.operation_uuid
            AND (o.status IN ('pending', 'processing') OR o.completed_at > now() - interval '2 minutes'))
)
SELECT count(*) AS count, string_agg('vec.g' || id, ', ') AS examples FROM lost
