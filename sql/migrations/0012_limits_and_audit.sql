-- What users may take, what running operations have reserved, and an audit log that can be read.

-- NULL = the default (DEFAULT_MAX_…), -1 = unlimited.
CREATE TABLE resource_limits (
    user_id     bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    max_collections bigint CHECK (max_collections >= -1),
    max_documents   bigint CHECK (max_documents >= -1),
    max_bytes       bigint CHECK (max_bytes >= -1),
    max_operations  bigint CHECK (max_operations >= -1), -- at a time: pending and processing
    -- Whether accepting an operation has to look: users without a row cost accepting nothing.
    is_limiting boolean NOT NULL GENERATED ALWAYS AS (max_documents >= 0 IS TRUE OR max_bytes >= 0 IS TRUE OR max_operations >= 0 IS TRUE) STORED,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- What a user's limit of operations is held against.
CREATE INDEX operations_live_of_user ON operations (user_id) WHERE status IN ('pending', 'processing');

-- Space in the database that an operation will need. It counts while its operation is pending or processing, less what that has done already.
CREATE TABLE reservations (
    operation_uuid uuid PRIMARY KEY REFERENCES operations (uuid) ON DELETE CASCADE,
    bytes          bigint NOT NULL CHECK (bytes >= 0),
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- Read newest first, one's own or all. Rows come in the order of time, so that a few summaries of pages say where a day begins; the index that this
-- takes the place of cost every end of an operation an entry.
CREATE INDEX audit_log_of_user ON audit_log (user_id, id);
CREATE INDEX audit_log_of_collection ON audit_log (collection_uuid, id) WHERE collection_uuid IS NOT NULL;
CREATE INDEX audit_log_of_acts ON audit_log (action, id) WHERE operation_uuid IS NULL;
CREATE INDEX audit_log_by_time ON audit_log USING brin (created_at) WITH (pages_per_range = 32);
