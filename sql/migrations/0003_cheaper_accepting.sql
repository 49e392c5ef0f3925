-- What accepting an operation need not pay for (docs/decisions/0003).

-- A collection's row changes with each of its operations, twice at least, and none of its indexes does: with room on its page the new version stays
-- there and no index is written (HOT). Pages that exist already get their room as rows on them die.
ALTER TABLE collections SET (fillfactor = 50);

-- No statement looks operations up by the collection's UUID: of a collection that is there operations_of_collection is used.
DROP INDEX operations_of_collection_uuid;
