/* Counts the chunks of every collection that has changed since it was counted last. One that is being worked on waits
 * for the next run; one that cannot be counted does not keep the others waiting. */
#include "common/json.h"
#include "common/log.h"
#include "common/store/chunking_store.h"
#include "worker/schedule.h"

enum { AT_A_TIME = 100 };

struct counted {
    int64_t collections, failed;
};

static enum status count_one(struct scheduled *s, int64_t id, const char *uuid, struct counted *n)
{
    struct scope own;
    struct chunking_stats stats = {0};
    scope_init(&own, NULL);
    enum status status = chunking_store_compute(&own, s->db, id, &stats);
    n->collections += status == STATUS_OK;
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        n->failed++;
        log_warning("statistics_failed", log_text("collection", uuid), log_text("problem", own.problem_text));
    }
    scope_done(&own);
    return status == STATUS_UNAVAILABLE || status == STATUS_CANCELLED ? status : STATUS_OK;
}

static enum status count_page(struct scope *sc, struct scheduled *s, struct counted *n, int64_t *io_after,
                              int *out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status status = chunking_store_due(sc, s->db, *io_after, AT_A_TIME, &rows);
    *out_rows = status == STATUS_OK ? PQntuples(rows) : 0;
    for (int r = 0; status == STATUS_OK && r < *out_rows; r++) {
        if (s->has_to_stop(s->stop_context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        *io_after = db_int(rows, r, "id", 0);
        status = count_one(s, *io_after, db_text(rows, r, "uuid"), n);
        if (status != STATUS_OK)
            return fail(sc, status, "a collection cannot be counted: %s", status_text(status));
    }
    return status;
}

enum status collection_statistics(struct scope *sc, struct scheduled *s)
{
    struct counted n = {0};
    enum status status = STATUS_OK;
    int64_t after = 0;
    for (int rows = AT_A_TIME; status == STATUS_OK && rows == AT_A_TIME;)
        status = count_page(sc, s, &n, &after, &rows);
    if (status != STATUS_OK)
        return status;
    s->result_json = arena_printf(&sc->arena, "{\"collections\":%lld,\"failed\":%lld}", (long long)n.collections,
                                  (long long)n.failed);
    return STATUS_OK;
}
