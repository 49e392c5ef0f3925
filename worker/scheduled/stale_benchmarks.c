/* Benchmarks whose operation ended without them, or is gone: they say so themselves from then on, so that they can be
 * read when the operation's row has been forgotten. */
#include "build/queries.h"
#include "common/json.h"
#include "worker/schedule.h"

enum { AT_A_TIME = 500 };

enum status stale_benchmarks(struct scope *sc, struct scheduled *s)
{
    int64_t total = 0;
    for (int64_t count = AT_A_TIME; count == AT_A_TIME; total += count) {
        scoped(PGresult) *rows = NULL;
        if (s->has_to_stop(s->stop_context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        enum status status = db_run(sc, s->db, SQL_BENCHMARKS_STALE, &rows, db_number(sc, AT_A_TIME));
        if (status != STATUS_OK)
            return status;
        count = strtoll(PQcmdTuples(rows), NULL, 10);
    }
    s->result_json = arena_printf(&sc->arena, "{\"benchmarks\":%lld}", (long long)total);
    return STATUS_OK;
}
