-- A due collection that cannot be accepted now makes room for others until the next minute. $1 collection id
UPDATE collections SET sync_next_run_at = now() + interval '50 seconds' WHERE id = $1::bigint AND sync_next_run_at <= now() AND deleted_at IS NULL
