#include "worker/tasks/graph.h"

#include "common/fault.h"

#include <poll.h>

/* Runs one long statement, keeping the supervisor informed and stopping when the task is told to. */
static enum status run_long(struct scope *sc, struct task *task, const char *sql)
{
    PGconn *conn;
    enum status s = db_connection(sc, task->db, &conn);
    if (s != STATUS_OK)
        return s;
    if (!PQsendQuery(conn, sql))
        return fail(sc, STATUS_UNAVAILABLE, "PostgreSQL: the connection broke");
    while (PQisBusy(conn)) {
        struct pollfd p = {.fd = PQsocket(conn), .events = POLLIN};
        int n = poll(&p, 1, 500);
        task_heartbeat(task);
        if (n > 0 && !PQconsumeInput(conn))
            return fail(sc, STATUS_UNAVAILABLE, "PostgreSQL: the connection broke");
        s = task_check(sc, task);
        if (s != STATUS_OK) {
            db_disconnect(task->db); /* with client_connection_check_interval the server stops too */
            return s;
        }
    }
    for (PGresult *r; (r = PQgetResult(conn));) {
        ExecStatusType kind = PQresultStatus(r);
        if (kind != PGRES_COMMAND_OK && kind != PGRES_TUPLES_OK && s == STATUS_OK)
            s = fail(sc, STATUS_UNAVAILABLE, "a long statement failed: %s", PQresultErrorMessage(r));
        PQclear(r);
    }
    return s;
}

enum status graph_build(struct scope *sc, struct task *task, struct generation *generation, int64_t vectors)
{
    if (generation->has_graph || vectors <= task->settings->exact_scan_rows)
        return STATUS_OK;
    const char *sql;
    enum status s = vector_store_graph_sql(sc, task->db, generation, &sql);
    if (s == STATUS_OK)
        s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = run_long(sc, task, sql);
    if (s == STATUS_OK)
        s = vector_store_graph_built(sc, task->db, generation->id);
    (void)FAULT(GRAPH_BUILT, task->operation_id);
    if (s == STATUS_OK)
        s = task_commit(sc, task);
    else
        db_rollback(task->db);
    if (s == STATUS_OK)
        generation->has_graph = true;
    return s;
}
