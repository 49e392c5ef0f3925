-- Quality of searches: datasets of queries with judgments, benchmarks of collections against them, and their results.

CREATE TABLE benchmark_datasets (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid           uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    owner_id       bigint NOT NULL REFERENCES users,
    name           text NOT NULL,
    description    text,
    format         text NOT NULL CHECK (format IN ('json', 'trec')),
    content_hash   text NOT NULL, -- of queries and judgments in a fixed order, so that the same content in another form has the same
    query_count    integer NOT NULL,
    judgment_count integer NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON benchmark_datasets (owner_id, created_at DESC, id DESC);

CREATE TABLE benchmark_queries (
    dataset_id bigint NOT NULL REFERENCES benchmark_datasets ON DELETE CASCADE,
    ordinal    integer NOT NULL, -- from 0, as uploaded
    query_id   text NOT NULL,
    content    text NOT NULL,
    PRIMARY KEY (dataset_id, ordinal),
    UNIQUE (dataset_id, query_id)
);

CREATE TABLE benchmark_judgments (
    dataset_id bigint NOT NULL,
    ordinal    integer NOT NULL, -- of the query
    kind       text NOT NULL CHECK (kind IN ('any', 'document_id', 'path', 'file_name')), -- what `document` is
    document   text NOT NULL,
    relevance  integer NOT NULL CHECK (relevance >= 0),
    PRIMARY KEY (dataset_id, ordinal, kind, document),
    FOREIGN KEY (dataset_id, ordinal) REFERENCES benchmark_queries ON DELETE CASCADE
);

CREATE TABLE benchmarks (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid            uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    name            text NOT NULL,
    user_id         bigint NOT NULL REFERENCES users,
    dataset_id      bigint NOT NULL REFERENCES benchmark_datasets,
    collection_id   bigint REFERENCES collections ON DELETE SET NULL,
    collection_uuid uuid NOT NULL, -- outlives the collection, as its name
    collection_name text NOT NULL,
    operation_uuid  uuid NOT NULL UNIQUE,
    repeats         integer NOT NULL DEFAULT 1,
    ignored         jsonb, -- names of the dataset that the collection does not have: {count, first}
    details         jsonb NOT NULL DEFAULT '{}',
    outcome         text CHECK (outcome IN ('completed', 'failed', 'cancelled')), -- null: what the operation says
    created_at      timestamptz NOT NULL DEFAULT now(),
    completed_at    timestamptz
);
CREATE INDEX ON benchmarks (user_id, created_at DESC, id DESC);
CREATE INDEX ON benchmarks (dataset_id);
CREATE INDEX ON benchmarks (collection_id);
CREATE INDEX ON benchmarks (id) WHERE outcome IS NULL;

-- The judgments as documents of the collection, when the benchmark was accepted. Documents may go; their UUIDs stay.
CREATE TABLE benchmark_judged (
    benchmark_id  bigint NOT NULL REFERENCES benchmarks ON DELETE CASCADE,
    ordinal       integer NOT NULL,
    document_uuid uuid NOT NULL,
    relevance     integer NOT NULL,
    PRIMARY KEY (benchmark_id, ordinal, document_uuid)
);

CREATE TABLE benchmark_configurations (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    benchmark_id bigint NOT NULL REFERENCES benchmarks ON DELETE CASCADE,
    ordinal      integer NOT NULL, -- from 0, in the order of the grid
    k            integer NOT NULL,
    mode         text NOT NULL,
    chunking     jsonb, -- null: the collection's live vectors
    metrics      jsonb, -- null until it has run
    latency      jsonb,
    details      jsonb,
    completed_at timestamptz,
    UNIQUE (benchmark_id, ordinal)
);

CREATE TABLE benchmark_results (
    configuration_id  bigint NOT NULL REFERENCES benchmark_configurations ON DELETE CASCADE,
    ordinal           integer NOT NULL,
    documents         uuid[] NOT NULL, -- best first, at most k
    scores            real[] NOT NULL,
    relevant          integer NOT NULL,
    relevant_returned integer NOT NULL,
    judged_returned   integer NOT NULL,
    "precision"       double precision NOT NULL,
    recall            double precision NOT NULL,
    mrr               double precision NOT NULL,
    ndcg              double precision NOT NULL,
    map               double precision NOT NULL,
    search_ms         double precision NOT NULL,
    embedding_ms      double precision NOT NULL,
    PRIMARY KEY (configuration_id, ordinal)
);
