#include "common/store/collection_store.h"

#include "build/queries.h"
#include "common/text.h"

#include <string.h>
#include <strings.h>

static void read_collection(struct scope *sc, const PGresult *rows, struct collection *out)
{
    *out = (struct collection){
        .id = db_int(rows, 0, "row_id", 0),
        .uuid = arena_strdup(&sc->arena, db_text(rows, 0, "id")),
        .name = arena_strdup(&sc->arena, db_text(rows, 0, "name")),
        .status = arena_strdup(&sc->arena, db_text(rows, 0, "status")),
        .model = arena_strdup(&sc->arena, db_text(rows, 0, "embedding_model")),
        .quantization = arena_strdup(&sc->arena, db_text(rows, 0, "quantization")),
        .owner_id = db_int(rows, 0, "owner_id", 0),
        .is_public = db_bool(rows, 0, "is_public"),
        .is_continuous = strcmp(db_text(rows, 0, "sync_mode"), "continuous") == 0,
        .sync_interval_minutes = db_int(rows, 0, "sync_interval_minutes", 0),
    };
}

enum status collection_store_find(struct scope *sc, struct db *db, const char *uuid, struct collection *out,
                                  PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(sc, db, SQL_COLLECTION_FIND, &rows, uuid);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "Collection with ID '%s' not found", uuid);
    read_collection(sc, rows, out);
    if (out_rows) {
        *out_rows = rows;
        rows = NULL;
    }
    return STATUS_OK;
}

enum status collection_store_list(struct scope *sc, struct db *db, int64_t user_id, bool with_public, int limit,
                                  int64_t offset, PGresult **out_rows)
{
    return db_run(sc, db, SQL_COLLECTION_LIST, out_rows, db_number(sc, user_id), with_public ? "true" : "false",
                  db_number(sc, limit), db_number(sc, offset));
}

static const char *number_or_null(struct scope *sc, int64_t n)
{
    return n < 0 ? NULL : db_number(sc, n);
}

/* A unique violation of the name gets its own sentence; the first problem noted wins, so the general one is forgotten.
 */
static enum status name_taken(struct scope *sc, struct db *db, enum status s, const char *name)
{
    if (s != STATUS_CONFLICT || strcmp(db_constraint(db), "collections_name_key") != 0)
        return s;
    scope_forgive(sc);
    return fail(sc, STATUS_CONFLICT, "Collection with name '%s' already exists", name);
}

enum status collection_store_insert(struct scope *sc, struct db *db, const struct collection_new *c,
                                    struct collection *out, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_COLLECTION_INSERT, &rows, c->name, c->description, db_number(sc, c->owner_id),
                           c->model, c->quantization, number_or_null(sc, c->chunk_size),
                           number_or_null(sc, c->chunk_overlap), c->strategy, c->chunking_json,
                           c->is_public ? "true" : "false", c->metadata_json,
                           c->is_continuous ? "continuous" : "one_time", number_or_null(sc, c->sync_interval_minutes));
    if (s != STATUS_OK)
        return name_taken(sc, db, s, c->name);
    read_collection(sc, rows, out);
    *out_rows = rows;
    rows = NULL;
    return STATUS_OK;
}

enum status collection_store_update(struct scope *sc, struct db *db, int64_t id, const struct collection_change *c,
                                    PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_COLLECTION_UPDATE, &rows, db_number(sc, id), c->name,
                           c->has_description ? "true" : "false", c->description, c->is_public,
                           c->has_metadata ? "true" : "false", c->metadata_json, c->sync_mode,
                           number_or_null(sc, c->sync_interval_minutes));
    if (s != STATUS_OK)
        return name_taken(sc, db, s, c->name);
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection was deleted");
    *out_rows = rows;
    rows = NULL;
    return STATUS_OK;
}

enum status collection_store_take(struct scope *sc, struct db *db, int64_t id)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_COLLECTION_TAKE, &rows, db_number(sc, id));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_CONFLICT, "the collection is not in a state for this: it must be pending or ready");
    return s;
}

enum status collection_store_hide(struct scope *sc, struct db *db, int64_t id)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_COLLECTION_HIDE, &rows, db_number(sc, id));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection was deleted");
    return s;
}

static const char *without_organisation(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

enum status collection_store_model(struct scope *sc, struct db *db, const char *default_model, const char *wanted,
                                   const char **out)
{
    const char *name = wanted ? without_organisation(wanted) : "";
    bool is_default = !*name || strcasecmp(name, "dense_local") == 0 ||
                      strcasecmp(name, without_organisation(default_model)) == 0;
    if (is_default) {
        *out = without_organisation(default_model);
        return STATUS_OK;
    }
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_MODELS_AVAILABLE, &rows);
    if (s != STATUS_OK)
        return s;
    scoped_text names = {0};
    text_puts(&names, without_organisation(default_model));
    for (int i = 0; i < PQntuples(rows); i++) {
        const char *model = db_text(rows, i, "model");
        if (strcasecmp(without_organisation(model), name) == 0) {
            *out = arena_strdup(&sc->arena, model);
            return STATUS_OK;
        }
        if (strcasecmp(model, without_organisation(default_model)) != 0)
            text_printf(&names, ", %s", model);
    }
    return fail(sc, STATUS_INVALID, "embedding_model '%s' is not available; available are: %s", wanted,
                text_str(&names));
}
