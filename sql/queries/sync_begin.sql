-- The run of a sync operation that was inserted and took its collection in this transaction. The next one is put off by an interval, and again
-- when this one ends. Scheduled and not due any more: no row, nothing changed. $1 collection row id, $2 operation uuid, $3 schedule | user
WITH due AS (
    UPDATE collections c SET sync_next_run_at = now() + make_interval(mins => c.sync_interval_minutes),
        sync_last_run_started_at = now(), sync_last_run_completed_at = NULL, sync_last_run_status = 'running', sync_last_error = NULL
    WHERE c.id = $1::bigint AND c.sync_mode = 'continuous' AND ($3::text = 'user' OR (c.sync_next_run_at <= now() AND c.sync_paused_at IS NULL))
    RETURNING c.id, c.uuid
)
INSERT INTO sync_runs (collection_id, collection_uuid, operation_uuid, triggered_by, expected_sources)
SELECT due.id, due.uuid, $2::uuid, $3::text, (SELECT count(*) FROM sources s WHERE s.collection_id = due.id) FROM due
RETURNING id, collection_uuid AS collection_id, operation_uuid AS operation_id, triggered_by, to_iso(started_at) AS started_at,
    to_iso(completed_at) AS completed_at, status, expected_sources, completed_sources, failed_sources, partial_sources, documents_added,
    documents_modified, documents_deleted, documents_unchanged, documents_failed, error_summary
