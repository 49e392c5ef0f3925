-- Which documents an attempt has in hand, so that those that kill it are found. The rule stands in worker/tasks/in_hand.h.

-- One row a running attempt, replaced with each group of documents. Written without waiting for the disk: a process that dies takes nothing of it.
CREATE TABLE in_hand (
    task_id        uuid PRIMARY KEY,
    operation_uuid uuid NOT NULL,
    document_ids   bigint[] NOT NULL
);
CREATE INDEX ON in_hand (operation_uuid);

ALTER TABLE documents
    ADD COLUMN is_suspected boolean NOT NULL DEFAULT false, -- was in hand when an attempt died: read alone from then on
    ADD COLUMN crashes smallint NOT NULL DEFAULT 0,         -- deaths of a child that had it alone in hand
    ADD COLUMN losses smallint NOT NULL DEFAULT 0,          -- lost workers that had it alone in hand
    ADD COLUMN failed_by uuid;                              -- the operation that recorded its failure
