-- Generations that are built beside the live one: who builds them, with which settings, and which version of which document belongs to them.

ALTER TABLE generations
    ADD COLUMN operation_uuid uuid, -- that builds it; null for a collection's first one
    ADD COLUMN settings jsonb;      -- model, quantization and chunking that it is built with; an operation may build several
CREATE INDEX generations_of_collection ON generations (collection_id);
CREATE INDEX generations_not_active ON generations (state, id) WHERE state <> 'active';
CREATE UNIQUE INDEX generations_of_operation ON generations (operation_uuid, settings) WHERE state = 'building';

-- The documents of a building generation; of a retired one: the versions that went out of sight with it. Their chunks go when the generation does.
CREATE TABLE staged_documents (
    generation_id bigint NOT NULL REFERENCES generations ON DELETE CASCADE,
    document_id   bigint NOT NULL,
    version       integer NOT NULL,
    live_version  integer NOT NULL,               -- the visible version that it was made from
    is_cut        boolean NOT NULL,               -- this version's chunks were written for this generation; else both use the same
    is_whole      boolean NOT NULL DEFAULT false, -- done with; else an attempt was (or is) in the middle of it
    source        text CHECK (source IN ('unchanged', 'file', 'chunks', 'lost', 'skipped')),
    problem       text,                           -- of a lost one
    chunks        integer NOT NULL DEFAULT 0,
    vectors       bigint NOT NULL DEFAULT 0,
    reused        bigint NOT NULL DEFAULT 0,      -- vectors that were copied
    embedded      bigint NOT NULL DEFAULT 0,      -- vectors that were computed
    PRIMARY KEY (generation_id, document_id)
);

-- The shape of the generation that vectors are copied into, as vec.g0 is that of the one they come from.
CREATE TABLE vec.g_to (LIKE vec.g0 INCLUDING ALL);
