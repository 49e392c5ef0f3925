-- Users, tokens, collections, operations, workers, documents, chunks, generations. Forward only; one transaction.
-- Times go out as ISO 8601 UTC with microseconds (to_iso), so that no client depends on the session's DateStyle.

CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA IF NOT EXISTS vec;

CREATE FUNCTION to_iso(t timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username      text NOT NULL,
    email         text NOT NULL,
    full_name     text,
    password_hash text NOT NULL,
    is_active     boolean NOT NULL DEFAULT true,
    is_superuser  boolean NOT NULL DEFAULT false,
    preferences   jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz,
    last_login    timestamptz
);
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE refresh_tokens (
    jti        text PRIMARY KEY,
    user_id    bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    token_hash text NOT NULL UNIQUE,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON refresh_tokens (user_id);

CREATE TABLE api_keys (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id      bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    name         text NOT NULL,
    prefix       text NOT NULL UNIQUE,
    secret_hash  text NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Which users may index below which roots, when SOURCE_ROOTS_FOR=granted.
CREATE TABLE source_grants (
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    root    bytea NOT NULL,
    PRIMARY KEY (user_id, root)
);

CREATE TABLE collections (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid              uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    name              text NOT NULL,
    description       text,
    owner_id          bigint NOT NULL REFERENCES users,
    embedding_model   text NOT NULL,
    quantization      text NOT NULL DEFAULT 'float16' CHECK (quantization IN ('float32', 'float16', 'int8')),
    chunk_size        integer,
    chunk_overlap     integer,
    chunking_strategy text,
    chunking_config   jsonb,
    is_public         boolean NOT NULL DEFAULT false,
    metadata          jsonb,
    extraction_config jsonb,
    queue             text,
    status            text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'ready', 'processing', 'error')),
    status_message    text,
    sync_mode         text NOT NULL DEFAULT 'one_time' CHECK (sync_mode IN ('one_time', 'continuous')),
    sync_interval_minutes integer,
    sync_paused_at    timestamptz,
    sync_next_run_at  timestamptz,
    sync_last_run_started_at timestamptz,
    sync_last_run_completed_at timestamptz,
    sync_last_run_status text,
    sync_last_error   text,
    active_generation bigint,
    -- Kept by the transactions that change documents, so that reading a collection counts nothing.
    document_count    bigint NOT NULL DEFAULT 0,
    vector_count      bigint NOT NULL DEFAULT 0,
    total_size_bytes  bigint NOT NULL DEFAULT 0,
    error_count       bigint NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    deleted_at        timestamptz -- gone for every reader; a delete operation removes the rest
);
CREATE UNIQUE INDEX collections_name_key ON collections (name) WHERE deleted_at IS NULL;
CREATE INDEX ON collections (owner_id) WHERE deleted_at IS NULL;
CREATE INDEX ON collections (created_at) WHERE is_public AND deleted_at IS NULL;

CREATE TABLE sources (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id   bigint NOT NULL REFERENCES collections ON DELETE CASCADE,
    source_type     text NOT NULL DEFAULT 'directory',
    source_path     text NOT NULL, -- as the client wrote it
    source_config   jsonb NOT NULL DEFAULT '{}',
    document_count  bigint NOT NULL DEFAULT 0,
    size_bytes      bigint NOT NULL DEFAULT 0,
    last_run_started_at timestamptz,
    last_run_completed_at timestamptz,
    last_run_status text,
    last_error      text,
    last_indexed_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection_id, source_type, source_path)
);

CREATE TABLE workers (
    id         text PRIMARY KEY, -- new at each process start
    host       text NOT NULL,
    pid        integer NOT NULL,
    url        text,             -- of its internal HTTP
    models     text[] NOT NULL DEFAULT '{}',
    queues     text[] NOT NULL DEFAULT '{}',
    slots      integer NOT NULL DEFAULT 0,
    devices    text[] NOT NULL DEFAULT '{}',
    draining   boolean NOT NULL DEFAULT false,
    version    text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

CREATE TABLE operations (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid          uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    collection_id bigint REFERENCES collections ON DELETE SET NULL,
    collection_uuid uuid,        -- outlives the collection
    user_id       bigint NOT NULL REFERENCES users,
    type          text NOT NULL,
    status        text NOT NULL DEFAULT 'pending'
                  CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    mutates       boolean NOT NULL,
    task_id       uuid,
    worker_id     text,
    attempt       integer NOT NULL DEFAULT 0, -- rises with every claim: the fence of events
    failures      integer NOT NULL DEFAULT 0, -- failures and crashes since the last committed document
    max_attempts  integer NOT NULL DEFAULT 4,
    not_before    timestamptz NOT NULL DEFAULT now(),
    queue         text NOT NULL,
    config        jsonb NOT NULL CHECK (jsonb_typeof(config) = 'object' AND config <> '{}'),
    percent       real NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 100),
    processed     bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    total         bigint,
    current_file  text,
    error_class   text,
    error_message text,
    result        jsonb,
    meta          jsonb NOT NULL DEFAULT '{}',
    announced_at  timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    started_at    timestamptz,
    completed_at  timestamptz
);
-- One mutating operation at a time on a collection.
CREATE UNIQUE INDEX operations_one_at_a_time ON operations (collection_id)
    WHERE mutates AND status IN ('pending', 'processing');
CREATE INDEX operations_due ON operations (not_before) WHERE status = 'pending';
CREATE INDEX operations_held ON operations (worker_id) WHERE status = 'processing';
CREATE INDEX operations_unannounced ON operations (completed_at)
    WHERE announced_at IS NULL AND status IN ('completed', 'failed', 'cancelled');
CREATE INDEX operations_of_user ON operations (user_id, created_at DESC, id DESC);
CREATE INDEX operations_of_collection ON operations (collection_id, created_at DESC, id DESC);
CREATE INDEX operations_of_collection_uuid ON operations (collection_uuid, created_at DESC);

-- The same table of transitions as common/operation.c; a test holds one against the other.
CREATE FUNCTION operations_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status IS DISTINCT FROM OLD.status AND NOT (
        (OLD.status = 'pending' AND NEW.status IN ('processing', 'cancelled', 'failed')) OR
        (OLD.status = 'processing' AND NEW.status IN ('completed', 'failed', 'cancelled', 'pending'))) THEN
        RAISE EXCEPTION 'operation % cannot go from % to %', OLD.uuid, OLD.status, NEW.status USING ERRCODE = 'OPT01';
    END IF;
    IF NEW.attempt < OLD.attempt OR NEW.uuid <> OLD.uuid OR NEW.type <> OLD.type THEN
        RAISE EXCEPTION 'operation %: attempt, uuid and type are not changed', OLD.uuid USING ERRCODE = 'OPT01';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER operations_guard BEFORE UPDATE ON operations FOR EACH ROW EXECUTE FUNCTION operations_guard();

-- The last statement of every transaction of an attempt: locks the row, raises OPF01 unless this task still holds it. COMMIT
-- follows at once. (A mere WHERE EXISTS would let a late transaction commit after the next claim.)
CREATE FUNCTION fence(op uuid, task uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held boolean;
BEGIN
    SELECT o.task_id = task AND o.status = 'processing' INTO held FROM operations o WHERE o.uuid = op FOR NO KEY UPDATE;
    IF held IS NOT TRUE THEN
        RAISE EXCEPTION 'operation % is not held by task %', op, task USING ERRCODE = 'OPF01';
    END IF;
END $$;

CREATE TABLE documents (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid          uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    collection_id bigint NOT NULL REFERENCES collections ON DELETE CASCADE,
    source_id     bigint REFERENCES sources ON DELETE SET NULL,
    path          bytea NOT NULL, -- absolute, as the file system has it
    file_name     text NOT NULL,  -- shown: escaped
    file_path     text NOT NULL,  -- shown: escaped
    file_size     bigint NOT NULL DEFAULT 0,
    mtime_ns      bigint,
    mime_type     text,
    content_hash  text NOT NULL DEFAULT '',
    status        text NOT NULL DEFAULT 'pending'
                  CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'deleted')),
    error_message text,
    error_category text CHECK (error_category IN ('transient', 'permanent', 'unknown')),
    retry_count   integer NOT NULL DEFAULT 0,
    last_retry_at timestamptz,
    live_version  integer NOT NULL DEFAULT 0, -- the version that searches see; 0 = none
    next_version  integer NOT NULL DEFAULT 1, -- the version that the next attempt writes
    chunk_count   integer NOT NULL DEFAULT 0,
    duplicate_of  bigint,                     -- same content, another path of this collection
    metadata      jsonb,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection_id, path)
);
CREATE INDEX documents_by_hash ON documents (collection_id, content_hash);
CREATE INDEX documents_by_status ON documents (collection_id, status, id);
CREATE INDEX documents_by_source ON documents (source_id);

CREATE TABLE chunks (
    collection_id bigint NOT NULL,
    id            bigint GENERATED ALWAYS AS IDENTITY,
    document_id   bigint NOT NULL,
    version       integer NOT NULL,
    ordinal       integer NOT NULL,
    content       text NOT NULL,
    tokens        integer NOT NULL,
    start_byte    integer NOT NULL,
    end_byte      integer NOT NULL,
    metadata      jsonb,
    tsv           tsvector GENERATED ALWAYS AS (to_tsvector('simple', content)) STORED,
    PRIMARY KEY (collection_id, id)
) PARTITION BY HASH (collection_id);
DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE format('CREATE TABLE chunks_%s PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER %s)', lpad(i::text, 2, '0'), i);
    END LOOP;
END $$;
CREATE UNIQUE INDEX chunks_by_document ON chunks (collection_id, document_id, version, ordinal);

CREATE TABLE generations (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id bigint NOT NULL,
    store         text NOT NULL DEFAULT 'pgvector' CHECK (store IN ('pgvector', 'qdrant')),
    model         text NOT NULL,
    dim           integer NOT NULL CHECK (dim BETWEEN 1 AND 4000),
    quantization  text NOT NULL,
    state         text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'active', 'retired')),
    has_graph     boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    activated_at  timestamptz,
    drop_after    timestamptz
);
CREATE UNIQUE INDEX generations_one_active ON generations (collection_id) WHERE state = 'active';

CREATE TABLE audit_log (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id         bigint,
    collection_uuid uuid,
    operation_uuid  uuid,
    action          text NOT NULL,
    details         jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON audit_log (created_at);
CREATE INDEX ON audit_log (operation_uuid);

CREATE TABLE operation_metrics (
    operation_uuid uuid NOT NULL,
    attempt        integer NOT NULL,
    name           text NOT NULL,
    value          double precision NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (operation_uuid, attempt, name)
);

CREATE TABLE idempotency_keys (
    user_id      bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    key          text NOT NULL,
    request_hash text NOT NULL,
    status       integer NOT NULL,
    body         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);

-- Singletons hold a table lease instead of a session lock, which a connection pooler would lose.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The shape of a generation's table; vec.g<id> are made like it, with the model's dimension. Queries are written against this empty
-- one, and the vector store puts the generation's name in its place.
CREATE TABLE vec.g0 (
    chunk_id    bigint PRIMARY KEY,
    document_id bigint NOT NULL,
    version     integer NOT NULL,
    embedding   halfvec NOT NULL
);
