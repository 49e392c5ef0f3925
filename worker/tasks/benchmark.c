#include "worker/tasks/benchmark.h"

#include "build/queries.h"
#include "common/fault.h"
#include "worker/embed/client.h"

#include <string.h>

/* ---- what there is to do ---- */

static enum status load_benchmark(struct scope *sc, struct bench *b)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, b->task->db, SQL_BENCHMARK_WORK, &rows, b->task->operation_id);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the benchmark was deleted");
    b->id = db_int(rows, 0, "id", 0);
    b->dataset_id = db_int(rows, 0, "dataset_id", 0);
    b->repeats = (int)db_int(rows, 0, "repeats", 1);
    return STATUS_OK;
}

static enum status load_queries(struct scope *sc, struct bench *b)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, b->task->db, SQL_BENCHMARK_WORK_QUERIES, &rows, db_number(sc, b->dataset_id));
    if (s != STATUS_OK)
        return s;
    b->query_count = (size_t)PQntuples(rows);
    b->queries = arena_array(&sc->arena, b->query_count + 1, sizeof *b->queries);
    for (size_t i = 0; i < b->query_count; i++)
        b->queries[i] = (struct bench_query){.ordinal = (int)db_int(rows, (int)i, "ordinal", 0),
                                             .id = arena_strdup(&sc->arena, db_text(rows, (int)i, "query_id")),
                                             .text = arena_strdup(&sc->arena, db_text(rows, (int)i, "content"))};
    return STATUS_OK;
}

/* Both come in the order of the queries' ordinals. */
static enum status load_judged(struct scope *sc, struct bench *b)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, b->task->db, SQL_BENCHMARK_WORK_JUDGED, &rows, db_number(sc, b->id));
    if (s != STATUS_OK)
        return s;
    int count = PQntuples(rows), row = 0;
    struct ir_judgment *all = arena_array(&sc->arena, (size_t)count + 1, sizeof *all);
    for (size_t i = 0; i < b->query_count; i++) {
        struct bench_query *q = &b->queries[i];
        q->judged = all + row;
        for (; row < count && db_int(rows, row, "ordinal", 0) == q->ordinal; row++) {
            all[row] = (struct ir_judgment){arena_strdup(&sc->arena, db_text(rows, row, "document_uuid")),
                                            (int)db_int(rows, row, "relevance", 0)};
            q->judged_count++;
        }
    }
    return STATUS_OK;
}

/* ---- progress ---- */

static void report(struct scope *sc, struct bench *b, const char *message, int flags)
{
    scoped_text data = {0};
    json_open(&data, NULL, '{');
    json_int(&data, "processed", b->done);
    json_int(&data, "total", b->total);
    json_text(&data, "message", message);
    json_close(&data, '}');
    double percent = b->total > 0 ? 99.0 * (double)b->done / (double)b->total : 0;
    b->task->processed = b->done;
    b->task->total = b->total;
    task_event(sc, b->task, "processing_progress", percent, NULL, text_str(&data), flags);
}

static const char *describe(struct scope *sc, const struct bench_configuration *c)
{
    return arena_printf(&sc->arena, "Configuration %d: k = %d, %s%s%s", c->ordinal, c->k, c->mode,
                        c->chunking_json ? ", chunking " : "", c->chunking_json ? c->chunking_json : "");
}

/* ---- one configuration ---- */

/* With memory of its own: a grid is as large as it likes. */
static enum status run_configuration(struct scope *sc, struct bench *b, const struct bench_configuration *c)
{
    struct bench_target before = {0}, after = {0};
    struct bench_answer *answers = NULL;
    struct scope own;
    enum status s = bench_stage(sc, b, c);
    if (s == STATUS_OK)
        s = bench_target_open(sc, b, c, &before);
    if (s == STATUS_OK)
        s = bench_embed(sc, b, before.generation.model);
    if (s != STATUS_OK)
        return s;
    scope_init(&own, sc->trace_id);
    report(&own, b, describe(&own, c), TASK_EVENT_ALWAYS);
    s = bench_ask(&own, b, c, &before, &answers);
    if (s == STATUS_OK)
        s = bench_judge(&own, b, c, answers);
    if (s == STATUS_OK)
        s = bench_target_open(&own, b, c, &after);
    if (s == STATUS_OK)
        s = bench_write(&own, b, c, &before, &after, answers);
    if (s != STATUS_OK)
        s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
    scope_done(&own);
    (void)FAULT(BENCHMARK_CONFIGURATION_DONE, b->task->operation_id);
    return s;
}

static enum status run_grid(struct scope *sc, struct bench *b)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, b->task->db, SQL_BENCHMARK_CONFIGURATIONS, &rows, db_number(sc, b->id));
    if (s != STATUS_OK)
        return s;
    b->total = (int64_t)b->query_count * PQntuples(rows);
    for (int i = 0; i < PQntuples(rows); i++)
        b->done += db_text(rows, i, "metrics") ? (int64_t)b->query_count : 0;
    for (int i = 0; i < PQntuples(rows) && s == STATUS_OK; i++) {
        if (db_text(rows, i, "metrics"))
            continue;
        s = run_configuration(sc, b,
                              &(struct bench_configuration){.id = db_int(rows, i, "row_id", 0),
                                                            .ordinal = (int)db_int(rows, i, "configuration", 0),
                                                            .k = (int)db_int(rows, i, "k", 0),
                                                            .mode = db_text(rows, i, "mode"),
                                                            .chunking_json = db_text(rows, i, "chunking")});
    }
    return s == STATUS_OK ? bench_unstage(sc, b) : s;
}

/* ---- the end ---- */

static enum status finish(struct scope *sc, struct bench *b)
{
    struct task *task = b->task;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = task_fence(sc, task); /* the collection's deletion takes them in this order, too */
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_BENCHMARK_DONE, NULL, db_number(sc, b->id));
    if (s != STATUS_OK) {
        db_rollback(task->db);
        return s;
    }
    s = task_commit(sc, task);
    if (s != STATUS_OK)
        return s;
    task->processed = task->total = b->total;
    task->result_json = arena_printf(&sc->arena, "{\"queries\":%zu,\"configurations\":%lld}", b->query_count,
                                     (long long)(b->query_count ? b->total / (int64_t)b->query_count : 0));
    task_event(sc, task, "benchmark_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}

enum status benchmark_run(struct scope *sc, struct task *task)
{
    struct bench b = {.task = task};
    enum status s = load_benchmark(sc, &b);
    if (s == STATUS_OK)
        s = load_queries(sc, &b);
    if (s == STATUS_OK)
        s = load_judged(sc, &b);
    if (s != STATUS_OK)
        return s;
    b.embedder = embed_client_new(task->embedder_socket);
    embed_client_on_wait(b.embedder, task_has_to_stop, task);
    s = run_grid(sc, &b);
    bench_leave_staging(&b);
    embed_client_free(b.embedder);
    return s == STATUS_OK ? finish(sc, &b) : s;
}
