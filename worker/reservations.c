/* By the clock: reservations of operations that are over. They counted no more since their operations ended. */
#include "worker/schedule.h"

#include "build/queries.h"

enum { A_TIME = 1000 };

enum status reservations_expire(struct scope *sc, struct scheduled *s)
{
    int64_t removed = 0, now = A_TIME;
    while (now == A_TIME) {
        if (s->has_to_stop && s->has_to_stop(s->stop_context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        scoped(PGresult) *rows = NULL;
        enum status status = db_run(sc, s->db, SQL_RESERVATIONS_EXPIRE, &rows, db_number(sc, A_TIME));
        if (status != STATUS_OK)
            return status;
        now = db_int(rows, 0, "removed", 0);
        removed += now;
    }
    s->result_json = arena_printf(&sc->arena, "{\"reservations_removed\":%lld}", (long long)removed);
    return STATUS_OK;
}
