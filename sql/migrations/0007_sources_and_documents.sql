-- What removing a source, reading failed documents again and looking for damage walk along.

-- Documents of a collection and of a source in their order, so that batch after batch goes on where the one before ended.
CREATE INDEX documents_of_collection ON documents (collection_id, id);
CREATE INDEX documents_of_source ON documents (source_id, id);
-- What an attempt left half written is looked for by every worker.
CREATE INDEX documents_half_written ON documents (id) WHERE status = 'processing';
-- The duplicates of a document that goes.
CREATE INDEX documents_duplicates ON documents (duplicate_of) WHERE duplicate_of IS NOT NULL;
