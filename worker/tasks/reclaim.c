#include "worker/tasks/reclaim.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdio.h>

enum { WORTH_ROWS = 10000 };

void reclaim_begin(struct scope *sc, struct task *task, struct reclaim *r)
{
    struct scope own;
    scoped(PGresult) *rows = NULL;
    scope_init(&own, sc->trace_id);
    *r = (struct reclaim){0};
    enum status s = db_run(&own, task->db, SQL_CHUNK_PARTITION, &rows, db_number(&own, task->collection_id));
    if (s == STATUS_OK && PQntuples(rows) > 0)
        snprintf(r->partition, sizeof r->partition, "%s", db_text(rows, 0, "partition"));
    scope_done(&own);
}

/* An autovacuum that is at it since the removal began has seen a part of it only: it yields to who waits. The name is
 * one of the catalog's own. */
static void vacuum(struct scope *sc, struct task *task, const char *table, int64_t rows)
{
    struct scope own;
    if (!*table || rows < WORTH_ROWS)
        return;
    scope_init(&own, sc->trace_id);
    int64_t started_ms = clock_monotonic_ms();
    enum status s = db_run(&own, task->db, "SET lock_timeout = '5s'", NULL);
    if (s == STATUS_OK)
        s = db_run(&own, task->db, arena_printf(&own.arena, "VACUUM %s", table), NULL);
    log_info("table_vacuumed", log_text("operation", task->operation_id), log_text("table", table),
             log_int("rows_removed", rows), log_real("seconds", (double)(clock_monotonic_ms() - started_ms) / 1000),
             log_text("problem", s == STATUS_OK ? NULL : own.problem_text));
    scope_forgive(&own);
    if (db_run(&own, task->db, "RESET lock_timeout", NULL) != STATUS_OK)
        db_disconnect(task->db); /* the next statement gets a connection that waits as usual */
    scope_done(&own);
}

void reclaim_end(struct scope *sc, struct task *task, const struct reclaim *r)
{
    vacuum(sc, task, r->partition, r->chunks);
    vacuum(sc, task, "documents", r->documents);
}
