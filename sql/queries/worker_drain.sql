-- Asks a worker, or every one, to take no more work and to end; from this commit on its claims find nothing, and it reads the wish with its next
-- renewal. One without slots carries out a single operation by hand and ends by itself. $1 worker id or null for all,
-- $2 the machine that it was asked from
WITH asked AS (
    UPDATE workers SET draining = true WHERE ($1::text IS NULL OR id = $1::text) AND expires_at > now() AND slots > 0 RETURNING id
), audited AS (
    INSERT INTO audit_log (action, details) SELECT 'worker_drained', jsonb_build_object('worker', id, 'by', 'opstream-worker --drain', 'host', $2::text) FROM asked
)
SELECT id FROM asked ORDER BY id
