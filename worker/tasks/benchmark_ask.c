/* The queries of a benchmark: embedded, asked, and what they found compared with the judgments. */
#include "build/queries.h"
#include "common/clock.h"
#include "worker/embed/client.h"
#include "worker/tasks/benchmark.h"
#include "worker/tasks/staging.h"

#include <string.h>

enum {
    EMBED_TIMEOUT_MS = 120000,
    WARM_UP = 10,       /* queries that are asked before anything is measured */
    MOST_CHUNKS = 1600, /* looked at to find k different documents */
};

enum status bench_target_open(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                              struct bench_target *out)
{
    scoped(PGresult) *rows = NULL;
    struct task *task = b->task;
    enum status s = db_run(sc, task->db, SQL_BENCHMARK_WORK_COLLECTION, &rows, db_number(sc, task->collection_id),
                           db_number(sc, task->user_id));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection was deleted, or is not public any more");
    if (s == STATUS_OK && c->chunking_json) {
        const struct staging *st = b->staging;
        *out = (struct bench_target){st->generation, true, st->counts.staged - st->counts.lost - st->counts.skipped,
                                     st->counts.vectors};
        return STATUS_OK;
    }
    if (s == STATUS_OK)
        s = vector_store_active(sc, task->db, task->collection_id, &out->generation);
    if (s == STATUS_NOT_FOUND)
        return fail(sc, STATUS_INVALID, "the collection has no vectors");
    if (s != STATUS_OK)
        return s;
    out->documents = db_int(rows, 0, "document_count", 0);
    out->vectors = db_int(rows, 0, "vector_count", 0);
    return STATUS_OK;
}

/* ---- embedding ---- */

/* One at a time, as searches come, so that the time is what a search waits. The vectors live as long as the benchmark.
 */
static enum status embed_one(struct scope *sc, struct bench *b, struct bench_vectors *v, size_t i)
{
    struct scope own;
    struct embed_answer answer;
    const struct bench_query *q = &b->queries[i];
    const struct embed_text text = {q->text, strlen(q->text)};
    scope_init(&own, sc->trace_id);
    int64_t start = clock_monotonic_us();
    enum status s = embed_client_run(&own, b->embedder, v->model, EMBED_QUERY, b->task->operation_id, &text, 1,
                                     EMBED_TIMEOUT_MS, &answer, NULL);
    v->ms[i] = (double)(clock_monotonic_us() - start) / 1000;
    if (s != STATUS_OK) {
        s = fail(sc, s, "query '%s' could not be embedded: %s", q->id,
                 own.problem_text ? own.problem_text : status_text(s));
    } else {
        if (!v->vectors) {
            v->dim = answer.dim;
            v->vectors = arena_array(&sc->arena, b->query_count * (size_t)answer.dim, sizeof *v->vectors);
        }
        memcpy(v->vectors + i * (size_t)v->dim, answer.vectors, (size_t)v->dim * sizeof *v->vectors);
    }
    scope_done(&own);
    return s;
}

enum status bench_embed(struct scope *sc, struct bench *b, const char *model)
{
    if (b->embedded.model && strcmp(b->embedded.model, model) == 0)
        return STATUS_OK;
    struct bench_vectors v = {.model = arena_strdup(&sc->arena, model),
                              .ms = arena_array(&sc->arena, b->query_count + 1, sizeof *v.ms)};
    for (size_t i = 0; i < b->query_count; i++) {
        enum status s = task_check(sc, b->task);
        if (s == STATUS_OK)
            s = embed_one(sc, b, &v, i);
        if (s != STATUS_OK)
            return s;
        task_heartbeat(b->task);
    }
    b->embedded = v;
    return STATUS_OK;
}

/* ---- asking ---- */

static enum status search(struct scope *sc, const struct bench *b, const struct bench_target *target, size_t i,
                          int limit, struct vector_hit **out, size_t *out_count, double *out_ms)
{
    const struct bench_vectors *v = &b->embedded;
    const float *query = v->vectors + i * (size_t)v->dim;
    int64_t start = clock_monotonic_us();
    enum status s = target->is_staged ? vector_store_search_generation(sc, b->task->db, &target->generation, true,
                                                                       query, v->dim, limit, -2, out, out_count)
                                      : vector_store_search_of_model(sc, b->task->db, b->task->collection_id, v->model,
                                                                     query, v->dim, limit, -2, out, out_count);
    *out_ms = (double)(clock_monotonic_us() - start) / 1000;
    if (s != STATUS_CONFLICT)
        return s;
    scope_forgive(sc);
    return fail(sc, STATUS_UNAVAILABLE, "the collection was re-indexed with another model meanwhile");
}

/* The best chunk of each document; `hits` are best first. */
static size_t keep_documents(struct vector_hit *hits, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = 0;
        while (n < kept && hits[n].document_id != hits[i].document_id)
            n++;
        if (n == kept)
            hits[kept++] = hits[i];
    }
    return kept;
}

/* Measured is a search for k chunks, as a client sends it. Where they are of fewer than k documents, more chunks are
 * looked at, unmeasured, so that the ranking has k documents. */
static enum status ask_one(struct scope *sc, const struct bench *b, const struct bench_target *target, size_t i, int k,
                           struct bench_answer *a)
{
    struct scope own;
    struct vector_hit *hits = NULL;
    size_t count = 0, kept = 0;
    double ms;
    enum status s = STATUS_OK;
    scope_init(&own, sc->trace_id);
    for (int n = 0; n < b->repeats && s == STATUS_OK; n++)
        s = search(&own, b, target, i, k, &hits, &count, &a->search_ms[n]);
    for (int limit = k; s == STATUS_OK; limit *= 4) {
        bool is_all = count < (size_t)limit;
        kept = keep_documents(hits, count);
        if (kept >= (size_t)k || is_all || limit >= MOST_CHUNKS)
            break;
        s = search(&own, b, target, i, limit * 4, &hits, &count, &ms);
    }
    if (s != STATUS_OK) {
        s = fail(sc, s, "query '%s': %s", b->queries[i].id, own.problem_text ? own.problem_text : status_text(s));
    } else {
        a->hits = arena_array(&sc->arena, kept + 1, sizeof *a->hits);
        if (hits && kept)
            memcpy(a->hits, hits, kept * sizeof *hits);
        a->hit_count = kept;
    }
    scope_done(&own);
    return s;
}

static void tell(struct scope *sc, struct bench *b, size_t asked)
{
    scoped_text data = {0};
    int64_t processed = b->done + (int64_t)asked;
    json_open(&data, NULL, '{');
    json_int(&data, "processed", processed);
    json_int(&data, "total", b->total);
    json_text(&data, "message", "Asking the queries");
    json_close(&data, '}');
    b->task->processed = processed;
    task_event(sc, b->task, "processing_progress", 99.0 * (double)processed / (double)b->total, NULL, text_str(&data),
               0);
}

enum status bench_ask(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                      const struct bench_target *target, struct bench_answer **out)
{
    struct bench_answer *answers = arena_array(&sc->arena, b->query_count + 1, sizeof *answers);
    for (size_t i = 0; i < b->query_count; i++)
        answers[i].search_ms = arena_array(&sc->arena, (size_t)b->repeats, sizeof *answers[i].search_ms);
    for (size_t i = 0; i < b->query_count && i < WARM_UP; i++) {
        struct vector_hit *hits;
        size_t count;
        double ms;
        enum status s = task_check(sc, b->task);
        if (s == STATUS_OK)
            s = search(sc, b, target, i, c->k, &hits, &count, &ms);
        if (s != STATUS_OK)
            return s;
    }
    for (size_t i = 0; i < b->query_count; i++) {
        enum status s = task_check(sc, b->task);
        if (s == STATUS_OK)
            s = ask_one(sc, b, target, i, c->k, &answers[i]);
        if (s != STATUS_OK)
            return s;
        tell(sc, b, i + 1);
    }
    *out = answers;
    return STATUS_OK;
}

/* ---- judging ---- */

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

struct document_name {
    int64_t id;
    const char *uuid;
};

static int by_document(const void *a, const void *b)
{
    int64_t x = ((const struct document_name *)a)->id, y = ((const struct document_name *)b)->id;
    return x < y ? -1 : x > y;
}

/* All documents that were found, each once, as an array of SQL. */
static const char *found_documents(struct scope *sc, const struct bench *b, const struct bench_answer *answers)
{
    size_t count = 0, n = 0;
    for (size_t i = 0; i < b->query_count; i++)
        count += answers[i].hit_count;
    int64_t *ids = arena_array(&sc->arena, count + 1, sizeof *ids);
    for (size_t i = 0; i < b->query_count; i++) {
        for (size_t h = 0; h < answers[i].hit_count; h++)
            ids[n++] = answers[i].hits[h].document_id;
    }
    qsort(ids, count, sizeof *ids, by_number);
    scoped_text t = {0};
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || ids[i] != ids[i - 1])
            text_printf(&t, "%c%lld", t.len ? ',' : '{', (long long)ids[i]);
    }
    text_puts(&t, t.len ? "}" : "{}");
    return arena_strdup(&sc->arena, text_str(&t));
}

static enum status name_documents(struct scope *sc, const struct bench *b, const struct bench_answer *answers,
                                  struct document_name **out, size_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, b->task->db, SQL_BENCHMARK_DOCUMENTS, &rows, found_documents(sc, b, answers));
    if (s != STATUS_OK)
        return s;
    *out_count = (size_t)PQntuples(rows);
    *out = arena_array(&sc->arena, *out_count + 1, sizeof **out);
    for (size_t i = 0; i < *out_count; i++)
        (*out)[i] = (struct document_name){db_int(rows, (int)i, "id", 0),
                                           arena_strdup(&sc->arena, db_text(rows, (int)i, "uuid"))};
    return STATUS_OK;
}

enum status bench_judge(struct scope *sc, struct bench *b, const struct bench_configuration *c,
                        struct bench_answer *answers)
{
    struct document_name *names = NULL;
    size_t name_count = 0;
    enum status s = name_documents(sc, b, answers, &names, &name_count);
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < b->query_count; i++) {
        struct bench_answer *a = &answers[i];
        a->ranked = arena_array(&sc->arena, a->hit_count + 1, sizeof *a->ranked);
        for (size_t h = 0; h < a->hit_count; h++) {
            const struct document_name key = {.id = a->hits[h].document_id};
            const struct document_name *name = !names ? NULL
                                                      : bsearch(&key, names, name_count, sizeof *names, by_document);
            if (name) /* else it went away meanwhile */
                a->ranked[a->ranked_count++] = (struct ir_ranked){name->uuid, (float)a->hits[h].score};
        }
        ir_sort(a->ranked, a->ranked_count);
        if (a->ranked_count > (size_t)c->k)
            a->ranked_count = (size_t)c->k;
        a->metrics = ir_measure(&sc->arena, a->ranked, a->ranked_count, b->queries[i].judged,
                                b->queries[i].judged_count, (size_t)c->k);
    }
    return STATUS_OK;
}
