-- Parents: large chunks that hold smaller ones and come back with them. They have no vector and ordinals below 0; a chunk names its parent by
-- the ordinal. Rows of older programs have none.
ALTER TABLE chunks ADD COLUMN is_parent boolean NOT NULL DEFAULT false, ADD COLUMN parent_ordinal integer;

-- What GET /api/v2/collections/{id}/chunking-stats shows, as it was at `computed_at`; `changed_at` is the collection's updated_at then.
CREATE TABLE collection_statistics (
    collection_id bigint PRIMARY KEY REFERENCES collections ON DELETE CASCADE,
    chunking      jsonb NOT NULL,
    changed_at    timestamptz NOT NULL,
    computed_at   timestamptz NOT NULL DEFAULT now()
);
