#include "common/store/sync_store.h"

#include "build/queries.h"
#include "common/fault.h"
#include "common/store/collection_store.h"
#include "common/store/resource_store.h"

enum status sync_store_due(struct scope *sc, struct db *db, int limit, PGresult **out_rows)
{
    return db_run(sc, db, SQL_SYNC_DUE, out_rows, db_number(sc, limit));
}

enum status sync_store_begin(struct scope *sc, struct db *db, int64_t collection_id, const char *operation_id,
                             const char *triggered_by, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SYNC_BEGIN, &rows, db_number(sc, collection_id), operation_id, triggered_by);
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_CONFLICT, "the collection is not to be synchronised now");
    if (s == STATUS_OK && out_rows) {
        *out_rows = rows;
        rows = NULL;
    }
    return s;
}

enum status sync_store_list(struct scope *sc, struct db *db, int64_t collection_id, int limit, int64_t offset,
                            PGresult **out_rows)
{
    return db_run(sc, db, SQL_SYNC_RUNS_LIST, out_rows, db_number(sc, collection_id), db_number(sc, limit),
                  db_number(sc, offset));
}

enum status sync_store_pause(struct scope *sc, struct db *db, int64_t collection_id, bool is_paused,
                             PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SYNC_PAUSE, &rows, db_number(sc, collection_id), is_paused ? "true" : "false");
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_INVALID, "The collection is not synchronised: its sync_mode is not 'continuous'");
    if (s == STATUS_OK) {
        *out_rows = rows;
        rows = NULL;
    }
    return s;
}

const char *sync_store_config(struct scope *sc, const char *triggered_by)
{
    return arena_printf(&sc->arena, "{\"triggered_by\":\"%s\"}", triggered_by);
}

enum status sync_store_dispatch(struct scope *sc, struct db *db, const struct settings *settings, int64_t collection_id,
                                int64_t owner_id, struct operation_ref *out)
{
    const struct resource_wish wish = {.user_id = owner_id, .amount = {[RESOURCE_OPERATIONS] = 1}};
    struct resource_refusal refusal;
    struct operation_new o = {.collection_id = collection_id,
                              .user_id = owner_id,
                              .type = OPERATION_SYNC,
                              .config_json = sync_store_config(sc, "schedule"),
                              .default_retries = (int)settings->default_max_retries};
    enum status s = db_begin(sc, db);
    if (s == STATUS_OK)
        s = resource_store_admit(sc, db, settings, &wish, &refusal);
    if (s == STATUS_OK)
        s = operation_store_insert(sc, db, &o, out);
    if (s == STATUS_OK)
        s = collection_store_take(sc, db, collection_id);
    if (s == STATUS_OK)
        s = sync_store_begin(sc, db, collection_id, out->uuid, "schedule", NULL);
    (void)FAULT(BEFORE_DISPATCH_COMMIT, out->uuid);
    if (s == STATUS_OK)
        return db_commit(sc, db);
    db_rollback(db);
    return s;
}

enum status sync_store_put_off(struct scope *sc, struct db *db, int64_t collection_id)
{
    return db_run(sc, db, SQL_SYNC_PUT_OFF, NULL, db_number(sc, collection_id));
}

enum status sync_store_count(struct scope *sc, struct db *db, const char *operation_id,
                             const struct sync_counts *counts)
{
    return db_run(sc, db, SQL_SYNC_COUNT, NULL, operation_id, db_number(sc, counts->added),
                  db_number(sc, counts->modified), db_number(sc, counts->deleted));
}

enum status sync_store_outcome(struct scope *sc, struct db *db, const char *operation_id, const struct sync_outcome *o,
                               struct sync_counts *out_counts)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SYNC_OUTCOME, &rows, operation_id, db_number(sc, o->completed_sources),
                           db_number(sc, o->failed_sources), db_number(sc, o->partial_sources), db_number(sc, o->found),
                           db_number(sc, o->failed));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        *out_counts = (struct sync_counts){0}; /* of an operation that nobody's sync began */
    else if (s == STATUS_OK)
        *out_counts = (struct sync_counts){.added = db_int(rows, 0, "documents_added", 0),
                                           .modified = db_int(rows, 0, "documents_modified", 0),
                                           .deleted = db_int(rows, 0, "documents_deleted", 0),
                                           .unchanged = db_int(rows, 0, "documents_unchanged", 0)};
    return s;
}
