-- Until the transaction ends nobody else counts what this name stands for. Its snapshot is older than the wait: count in the next statement.
-- $1 a name
SELECT pg_advisory_xact_lock(hashtextextended('opstream ' || $1::text, 0))
