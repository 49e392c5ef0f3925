/* What a configuration of a benchmark measured, as rows. */
#include "build/queries.h"
#include "common/fault.h"
#include "worker/tasks/benchmark.h"

#include <stdio.h>

/* ---- figures ---- */

static double share(double sum, int64_t count)
{
    return count > 0 ? sum / (double)count : 0;
}

/* Means over the queries that have a relevant document, as trec_eval takes them without -c. */
static const char *figures(struct scope *sc, const struct bench *b, const struct bench_answer *answers)
{
    struct ir_metrics sum = {0};
    int64_t measured = 0;
    for (size_t i = 0; i < b->query_count; i++) {
        const struct ir_metrics *m = &answers[i].metrics;
        if (m->relevant == 0)
            continue;
        measured++;
        sum.precision += m->precision;
        sum.recall += m->recall;
        sum.reciprocal_rank += m->reciprocal_rank;
        sum.ndcg += m->ndcg;
        sum.average_precision += m->average_precision;
        sum.relevant += m->relevant;
        sum.relevant_returned += m->relevant_returned;
        sum.judged_returned += m->judged_returned;
        sum.returned += m->returned;
    }
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_real(&t, "precision", share(sum.precision, measured));
    json_real(&t, "recall", share(sum.recall, measured));
    json_real(&t, "mrr", share(sum.reciprocal_rank, measured));
    json_real(&t, "ndcg", share(sum.ndcg, measured));
    json_real(&t, "map", share(sum.average_precision, measured));
    json_int(&t, "queries", measured);
    json_int(&t, "queries_left_out", (int64_t)b->query_count - measured);
    json_int(&t, "returned", sum.returned);
    json_int(&t, "judged_returned", sum.judged_returned);
    json_int(&t, "relevant", sum.relevant);
    json_int(&t, "relevant_returned", sum.relevant_returned);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static void write_times(struct text *t, const char *key, double *ms, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += ms[i];
    json_open(t, key, '{');
    json_real(t, "mean", share(sum, (int64_t)count));
    json_real(t, "p50", ir_percentile(ms, count, 0.50));
    json_real(t, "p95", ir_percentile(ms, count, 0.95));
    json_real(t, "p99", ir_percentile(ms, count, 0.99));
    json_int(t, "samples", (int64_t)count);
    json_close(t, '}');
}

static const char *times(struct scope *sc, const struct bench *b, const struct bench_answer *answers)
{
    size_t repeats = (size_t)b->repeats, count = b->query_count;
    double *search = arena_array(&sc->arena, count * repeats + 1, sizeof *search);
    double *embedding = arena_array(&sc->arena, count + 1, sizeof *embedding);
    for (size_t i = 0; i < count; i++) {
        embedding[i] = b->embedded.ms[i];
        for (size_t n = 0; n < repeats; n++)
            search[i * repeats + n] = answers[i].search_ms[n];
    }
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    write_times(&t, "search_ms", search, count * repeats);
    write_times(&t, "embedding_ms", embedding, count);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

static const char *details(struct scope *sc, const struct bench_target *before, const struct bench_target *after)
{
    const struct generation *g = &before->generation;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "generation", g->id);
    json_text(&t, "model", g->model);
    json_int(&t, "dimension", g->dim);
    json_text(&t, "index", g->has_graph ? "hnsw" : "exact");
    json_int(&t, "documents", before->documents);
    json_int(&t, "vectors", before->vectors);
    /* Then the figures are of neither state wholly. */
    json_bool(&t, "changed_meanwhile",
              g->id != after->generation.id || before->documents != after->documents ||
                  before->vectors != after->vectors);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

/* ---- rows ---- */

enum { COLUMNS = 13 };

static const char *real(struct scope *sc, double n)
{
    return arena_printf(&sc->arena, "%.17g", n);
}

static void put_ranking(struct text *documents, struct text *scores, const struct bench_answer *a)
{
    scoped_text d = {0}, s = {0};
    text_putc(&d, '{');
    text_putc(&s, '{');
    for (size_t i = 0; i < a->ranked_count; i++) {
        text_printf(&d, "%s%s", i ? "," : "", a->ranked[i].document);
        text_printf(&s, "%s%.9g", i ? "," : "", (double)a->ranked[i].score);
    }
    text_putc(&d, '}');
    text_putc(&s, '}');
    db_array_put(documents, text_str(&d));
    db_array_put(scores, text_str(&s));
}

static void put_row(struct scope *sc, struct text columns[COLUMNS], const struct bench *b, size_t i,
                    const struct bench_answer *a)
{
    const struct ir_metrics *m = &a->metrics;
    db_array_put(&columns[0], db_number(sc, b->queries[i].ordinal));
    put_ranking(&columns[1], &columns[2], a);
    db_array_put(&columns[3], db_number(sc, m->relevant));
    db_array_put(&columns[4], db_number(sc, m->relevant_returned));
    db_array_put(&columns[5], db_number(sc, m->judged_returned));
    db_array_put(&columns[6], real(sc, m->precision));
    db_array_put(&columns[7], real(sc, m->recall));
    db_array_put(&columns[8], real(sc, m->reciprocal_rank));
    db_array_put(&columns[9], real(sc, m->ndcg));
    db_array_put(&columns[10], real(sc, m->average_precision));
    db_array_put(&columns[11], real(sc, a->search_ms[0]));
    db_array_put(&columns[12], real(sc, b->embedded.ms[i]));
}

static enum status write_results(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                                 const struct bench_answer *answers)
{
    struct text columns[COLUMNS] = {0};
    const char *params[COLUMNS + 1] = {db_number(sc, c->id)};
    for (size_t i = 0; i < b->query_count; i++)
        put_row(sc, columns, b, i, &answers[i]);
    for (size_t n = 0; n < COLUMNS; n++)
        params[n + 1] = db_array_end(&columns[n]);
    enum status s = db_query(sc, b->task->db, SQL_BENCHMARK_WRITE_RESULTS, COLUMNS + 1, params, NULL);
    for (size_t n = 0; n < COLUMNS; n++)
        text_free(&columns[n]);
    return s;
}

enum status bench_write(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                        const struct bench_target *before, const struct bench_target *after,
                        const struct bench_answer *answers)
{
    struct task *task = b->task;
    int64_t done = b->done + (int64_t)b->query_count;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = write_results(sc, b, c, answers);
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_BENCHMARK_CONFIGURATION_DONE, NULL, db_number(sc, c->id), figures(sc, b, answers),
                   times(sc, b, answers), details(sc, before, after));
    (void)FAULT(BENCHMARK_RESULTS_WRITTEN, task->operation_id);
    if (s == STATUS_OK)
        s = task_progressed(sc, task, done, 0);
    if (s != STATUS_OK) {
        db_rollback(task->db);
        return s;
    }
    s = task_commit(sc, task);
    if (s == STATUS_OK)
        b->done = done;
    return s;
}
