#include "common/store/search_store.h"

#include "build/queries.h"
#include "common/text.h"

enum status search_store_collections(struct scope *sc, struct db *db, const char *uuids, PGresult **out_rows)
{
    return db_run_kept(sc, db, SQL_SEARCH_COLLECTIONS, out_rows, uuids);
}

enum status search_store_chunks(struct scope *sc, struct db *db, const struct search_key *keys, size_t count,
                                bool with_content, PGresult **out_rows)
{
    scoped_text collections = {0}, chunks = {0};
    for (size_t i = 0; i < count; i++) {
        text_printf(&collections, "%c%lld", i ? ',' : '{', (long long)keys[i].collection_id);
        text_printf(&chunks, "%c%lld", i ? ',' : '{', (long long)keys[i].chunk_id);
    }
    text_puts(&collections, count ? "}" : "{}");
    text_puts(&chunks, count ? "}" : "{}");
    return db_run(sc, db, SQL_SEARCH_CHUNKS, out_rows, text_str(&collections), text_str(&chunks),
                  with_content ? "true" : "false");
}
