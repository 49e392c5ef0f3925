-- One row an attempt for its figures instead of one a figure: five rows with an index entry each were a quarter of what the end of a short operation
-- costs. Older programs go on writing operation_metrics.
CREATE TABLE operation_figures (
    operation_uuid uuid NOT NULL,
    attempt        integer NOT NULL,
    figures        jsonb NOT NULL, -- duration_seconds, cpu_seconds, memory_peak_bytes, documents_processed, documents_failed, …
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (operation_uuid, attempt)
);
INSERT INTO operation_figures (operation_uuid, attempt, figures, recorded_at)
SELECT operation_uuid, attempt, jsonb_object_agg(name, value), max(recorded_at) FROM operation_metrics GROUP BY operation_uuid, attempt;

-- The transitions are looked at when something changes that they are about, not at every note of progress.
DROP TRIGGER operations_guard ON operations;
CREATE TRIGGER operations_guard BEFORE UPDATE ON operations FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.attempt <> NEW.attempt OR OLD.uuid <> NEW.uuid OR OLD.type <> NEW.type)
    EXECUTE FUNCTION operations_guard();
