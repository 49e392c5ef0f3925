-- Continuous collections whose time has come and that could be read now, the longest overdue first. $1 limit
SELECT c.id, c.uuid, c.owner_id
FROM collections c
WHERE c.sync_mode = 'continuous' AND c.sync_next_run_at <= now() AND c.sync_paused_at IS NULL AND c.deleted_at IS NULL AND c.status = 'ready'
    AND EXISTS (SELECT 1 FROM sources s WHERE s.collection_id = c.id)
ORDER BY c.sync_next_run_at, c.id LIMIT $1::integer
