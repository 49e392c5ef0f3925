#include "common/store/schedule_store.h"

#include "build/queries.h"

static const char LEASE[] = "scheduler";

static const char *seconds_of(struct scope *sc, double seconds)
{
    return arena_printf(&sc->arena, "%.3f", seconds);
}

enum status schedule_store_state(struct scope *sc, struct db *db, int64_t *out_now, struct schedule_state **out,
                                 size_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SCHEDULE_STATE, &rows);
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(rows);
    struct schedule_state *all = arena_array(&sc->arena, (size_t)n + 1, sizeof *all);
    *out_now = db_int(rows, 0, "now", 0);
    *out_count = 0;
    for (int r = 0; r < n; r++) {
        if (!db_text(rows, r, "name"))
            continue;
        all[(*out_count)++] = (struct schedule_state){
            .name = arena_strdup(&sc->arena, db_text(rows, r, "name")),
            .expression = arena_strdup(&sc->arena, db_text(rows, r, "expression")),
            .next_due = db_int(rows, r, "next_due", 0)};
    }
    *out = all;
    return STATUS_OK;
}

enum status schedule_store_put(struct scope *sc, struct db *db, const char *name, const char *expression,
                               int64_t next_due)
{
    return db_run(sc, db, SQL_SCHEDULE_PUT, NULL, name, expression, db_number(sc, next_due));
}

enum status schedule_store_remove(struct scope *sc, struct db *db, const char *name)
{
    return db_run(sc, db, SQL_SCHEDULE_REMOVE, NULL, name);
}

enum status schedule_store_take(struct scope *sc, struct db *db, const struct schedule_due *due, const char *worker,
                                double lease_seconds, int64_t *out_task_id)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SCHEDULE_TAKE, &rows, due->name, db_number(sc, due->seen),
                           db_number(sc, due->due), db_number(sc, due->next), db_number(sc, due->missed), worker,
                           seconds_of(sc, lease_seconds));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_CONFLICT, "this due time of %s was taken already", due->name);
    if (s == STATUS_OK)
        *out_task_id = db_int(rows, 0, "id", 0);
    return s;
}

enum status schedule_store_by_hand(struct scope *sc, struct db *db, const char *name, const char *worker,
                                   double lease_seconds, int64_t *out_task_id)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SCHEDULE_BY_HAND, &rows, name, worker, seconds_of(sc, lease_seconds));
    if (s == STATUS_OK)
        *out_task_id = db_int(rows, 0, "id", 0);
    return s;
}

enum status schedule_store_extend(struct scope *sc, struct db *db, const int64_t *task_ids, size_t count,
                                  double lease_seconds)
{
    scoped_text ids = {0};
    if (count == 0)
        return STATUS_OK;
    for (size_t i = 0; i < count; i++)
        db_array_put(&ids, db_number(sc, task_ids[i]));
    return db_run(sc, db, SQL_SCHEDULE_EXTEND, NULL, db_array_end(&ids), seconds_of(sc, lease_seconds));
}

enum status schedule_store_lost(struct scope *sc, struct db *db, PGresult **out_rows)
{
    return db_run(sc, db, SQL_SCHEDULE_LOST, out_rows);
}

enum status schedule_store_end(struct scope *sc, struct db *db, int64_t task_id, const char *status,
                               const char *result_json, const char *error, bool is_transient)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_SCHEDULE_END, &rows, db_number(sc, task_id), status, result_json, error,
                           is_transient ? "true" : "false");
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_LOST, "the run was counted as lost");
    return s;
}

enum status schedule_store_lease(struct scope *sc, struct db *db, const char *holder, double seconds, bool *out_is_ours)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_LEASE_TAKE, &rows, LEASE, holder, seconds_of(sc, seconds));
    *out_is_ours = s == STATUS_OK && PQntuples(rows) == 1;
    return s;
}

enum status schedule_store_release(struct scope *sc, struct db *db, const char *holder)
{
    return db_run(sc, db, SQL_LEASE_RELEASE, NULL, LEASE, holder);
}
