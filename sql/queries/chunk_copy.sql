-- Chunks come in by COPY BINARY: parsing text is what makes loading slow.
COPY chunks (collection_id, id, document_id, version, ordinal, content, tokens, start_byte, end_byte, metadata, is_parent,
    parent_ordinal) FROM STDIN BINARY
