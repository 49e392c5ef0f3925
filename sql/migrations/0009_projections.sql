-- Projections: two-dimensional coordinates of a collection's vectors. What state one is in is its operation's state, so the two cannot disagree;
-- `read_at` and `completed_at` are written with the coordinates, in one fenced transaction.

CREATE TABLE projections (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid           uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    collection_id  bigint NOT NULL REFERENCES collections ON DELETE CASCADE,
    operation_uuid uuid NOT NULL,     -- of the operation that builds it; its row may be forgotten before this one
    user_id        bigint NOT NULL,
    method         text NOT NULL CHECK (method IN ('pca', 'umap', 'tsne')),
    seed           bigint NOT NULL,
    sample_size    integer NOT NULL CHECK (sample_size BETWEEN 1 AND 200000),
    color_by       text NOT NULL CHECK (color_by IN ('document', 'source', 'type', 'none')),
    parameters     jsonb NOT NULL,    -- of the method
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- Of the result; null until it is there.
    generation_id  bigint,
    document_count bigint,            -- of the collection when it was read
    vector_count   bigint,
    read_at        timestamptz,
    point_count    integer,
    dim            integer,           -- of the vectors
    legend         jsonb,             -- [{label, text, count}]
    figures        jsonb,             -- how good it is, how long it took
    completed_at   timestamptz
);
CREATE INDEX projections_of_collection ON projections (collection_id, created_at DESC, id DESC);
CREATE INDEX projections_of_operation ON projections (operation_uuid);

-- The arrays as they go out, one after another, in pieces: float32 x and y, uint32 label, int64 chunk id, little-endian.
CREATE TABLE projection_parts (
    projection_id bigint NOT NULL REFERENCES projections ON DELETE CASCADE,
    part          integer NOT NULL,
    data          bytea NOT NULL,
    PRIMARY KEY (projection_id, part)
);
-- Numbers do not shrink: trying costs more than it saves.
ALTER TABLE projection_parts ALTER COLUMN data SET STORAGE EXTERNAL;
