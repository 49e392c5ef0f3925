/* What a search reads beside vectors: its collections, and the texts of its hits. Rows; caller: scoped(PGresult). */
#pragma once

#include "common/db.h"

/* `uuids` as PostgreSQL writes arrays. Columns: id, uuid, name, owner_id, is_public, embedding_model, generation_model
 * (null without vectors). */
enum status search_store_collections(struct scope *sc, struct db *db, const char *uuids,
                                     PGresult **out_rows) must_check;

struct search_key {
    int64_t collection_id, chunk_id;
};
/* By `place`, from 1; hits whose document went away meanwhile are missing. Columns: content, ordinal, chunk_metadata,
 * document_id, file_name, file_path, chunk_count, document_metadata. */
enum status search_store_chunks(struct scope *sc, struct db *db, const struct search_key *keys, size_t count,
                                bool with_content, PGresult **out_rows) must_check;
