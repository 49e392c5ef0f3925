-- In a transaction of their own: what drops an index waits for everybody who uses the table, and must hold no other lock meanwhile.
DROP INDEX documents_by_source; -- documents_of_source does what it did
