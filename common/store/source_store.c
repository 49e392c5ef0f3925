#include "common/store/source_store.h"

#include "build/queries.h"

#include <string.h>

enum status source_store_put(struct scope *sc, struct db *db, const struct source_new *source, int64_t *out_id)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SOURCE_UPSERT, &rows, db_number(sc, source->collection_id), source->type,
                           source->path, source->config_json);
    if (s == STATUS_OK)
        *out_id = db_int(rows, 0, "id", 0);
    return s;
}

enum status source_store_list(struct scope *sc, struct db *db, int64_t collection_id, int limit, int64_t offset,
                              PGresult **out_rows)
{
    return db_run(sc, db, SQL_SOURCE_LIST, out_rows, db_number(sc, collection_id), db_number(sc, limit),
                  db_number(sc, offset));
}

enum status source_store_find(struct scope *sc, struct db *db, int64_t collection_id, int64_t id, const char *path,
                              PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SOURCE_FIND, &rows, db_number(sc, collection_id), id ? db_number(sc, id) : NULL,
                           path);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return path ? fail(sc, STATUS_NOT_FOUND, "Source with path '%s' not found", path)
                    : fail(sc, STATUS_NOT_FOUND, "Source with ID '%lld' not found", (long long)id);
    *out_rows = rows;
    rows = NULL;
    return STATUS_OK;
}

enum status source_store_update(struct scope *sc, struct db *db, int64_t collection_id, int64_t id,
                                const char *config_json)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SOURCE_UPDATE, &rows, db_number(sc, collection_id), db_number(sc, id),
                           config_json);
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "Source with ID '%lld' not found", (long long)id);
    return s;
}

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* The root itself or something below it; `hex` is the root's bytes. */
static bool is_below(const char *path, const char *hex)
{
    size_t len = strlen(hex) / 2;
    while (len > 1 && nibble(hex[len * 2 - 2]) == 2 && nibble(hex[len * 2 - 1]) == 15) /* slashes at its end */
        len--;
    for (size_t i = 0; i < len; i++) {
        if (path[i] == '\0' ||
            (unsigned char)path[i] != (unsigned char)(nibble(hex[i * 2]) << 4 | nibble(hex[i * 2 + 1])))
            return false;
    }
    return len > 0 && (path[len] == '\0' || path[len] == '/' || path[len - 1] == '/');
}

enum status source_store_is_granted(struct scope *sc, struct db *db, int64_t user_id, const char *path, bool *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SOURCE_GRANTS_OF, &rows, db_number(sc, user_id));
    if (s != STATUS_OK)
        return s;
    *out = false;
    for (int i = 0; i < PQntuples(rows) && !*out; i++)
        *out = is_below(path, db_text(rows, i, "root"));
    return STATUS_OK;
}
