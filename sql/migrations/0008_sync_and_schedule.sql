-- What runs by the clock, and the runs that follow the sources of continuous collections.

-- The end of a run: how the operation ended, in its own transaction (lock order: operations, collections). The next one comes an interval later,
-- and up to a twentieth of it more, so that collections made together do not stay together.
CREATE FUNCTION sync_run_ended() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    run_status text := CASE WHEN NEW.status = 'completed' THEN coalesce(NEW.result ->> 'sync_status', 'success') ELSE 'failed' END;
    problem text := CASE WHEN NEW.status = 'cancelled' THEN 'it was cancelled' WHEN NEW.status = 'failed' THEN NEW.error_message
        ELSE NEW.result ->> 'error_summary' END;
BEGIN
    UPDATE sync_runs SET status = run_status, completed_at = now(), error_summary = problem WHERE operation_uuid = NEW.uuid AND status = 'running';
    IF FOUND THEN
        UPDATE collections SET sync_last_run_status = run_status, sync_last_run_completed_at = now(), sync_last_error = problem,
            sync_next_run_at = CASE WHEN sync_mode = 'continuous'
                THEN now() + make_interval(mins => sync_interval_minutes) * (1 + random() / 20) END
        WHERE id = NEW.collection_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sync_run_ended AFTER UPDATE ON operations FOR EACH ROW
    WHEN (NEW.type = 'sync' AND OLD.status IS DISTINCT FROM NEW.status AND NEW.status IN ('completed', 'failed', 'cancelled'))
    EXECUTE FUNCTION sync_run_ended();

-- One row a scheduled task, written by the holder of the lease "scheduler". next_due_at is what makes a due time be taken once.
CREATE TABLE schedules (
    name        text PRIMARY KEY,
    expression  text NOT NULL,      -- of crontab, UTC
    next_due_at timestamptz NOT NULL,
    last_due_at timestamptz,        -- the one that was taken last
    losses      integer NOT NULL DEFAULT 0 -- runs in a row that died with their worker, or found something away
);

-- One row a run. While it lasts its worker puts expires_at off.
CREATE TABLE system_tasks (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    due_at     timestamptz,         -- null: run by hand
    missed     integer NOT NULL DEFAULT 0, -- due times before it for which nothing ran
    status     text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'completed', 'failed', 'stopped', 'lost')),
    worker     text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    expires_at timestamptz NOT NULL,
    result     jsonb,
    error      text
);
CREATE INDEX system_tasks_by_age ON system_tasks (started_at DESC, id DESC);
CREATE INDEX system_tasks_of_name ON system_tasks (name, id DESC);
CREATE INDEX system_tasks_running ON system_tasks (expires_at) WHERE status = 'running';

-- One row a run of sync. What becomes of it is written by the trigger below, so that no way in which an operation can end forgets it.
CREATE TABLE sync_runs (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id   bigint NOT NULL REFERENCES collections ON DELETE CASCADE,
    collection_uuid uuid NOT NULL,
    operation_uuid  uuid NOT NULL UNIQUE,
    triggered_by    text NOT NULL CHECK (triggered_by IN ('schedule', 'user')),
    started_at      timestamptz NOT NULL DEFAULT now(),
    completed_at    timestamptz,
    status          text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'success', 'failed', 'partial')),
    expected_sources    integer NOT NULL DEFAULT 0,
    completed_sources   integer NOT NULL DEFAULT 0,
    failed_sources      integer NOT NULL DEFAULT 0,
    partial_sources     integer NOT NULL DEFAULT 0,
    documents_added     bigint NOT NULL DEFAULT 0,
    documents_modified  bigint NOT NULL DEFAULT 0,
    documents_deleted   bigint NOT NULL DEFAULT 0,
    documents_unchanged bigint NOT NULL DEFAULT 0,
    documents_failed    bigint NOT NULL DEFAULT 0,
    error_summary   text
);
CREATE INDEX sync_runs_of_collection ON sync_runs (collection_id, id DESC);
CREATE INDEX collections_sync_due ON collections (sync_next_run_at) WHERE sync_mode = 'continuous' AND sync_paused_at IS NULL AND deleted_at IS NULL;
