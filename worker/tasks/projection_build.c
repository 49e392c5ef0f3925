/* PROJECTION_BUILD: reads a sample of the collection's vectors, computes their coordinates, and writes these in one
 * fenced transaction, so that there is a whole projection or none. What an attempt computed and did not commit is
 * computed again by the next, with the same result. */
#include "build/queries.h"
#include "common/clock.h"
#include "common/copy.h"
#include "common/fault.h"
#include "worker/tasks/projecting.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { PART_BYTES = 1 << 18, FIRST_PERCENT = 10, LAST_PERCENT = 98 };

struct computation {
    struct scope *sc;
    struct projecting *p;
    enum status status; /* why it was stopped */
};

/* ---- what is to be built ---- */

static enum status load(struct scope *sc, struct projecting *p, bool *out_is_built)
{
    struct task *task = p->task;
    scoped(PGresult) *rows = NULL;
    scoped(cJSON) *parameters = NULL;
    enum status s = db_run(sc, task->db, SQL_PROJECTION_BEGIN, &rows, task->operation_id);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_INVALID, "The projection was deleted before it was built");
    const char *json = db_text(rows, 0, "parameters");
    s = json_parse(sc, json, strlen(json), &parameters);
    if (s != STATUS_OK)
        return s;
    if (!projection_method_parse(db_text(rows, 0, "method"), &p->options.method))
        return fail(sc, STATUS_INVALID, "This worker does not know projections by %s", db_text(rows, 0, "method"));
    p->id = db_int(rows, 0, "id", 0);
    p->sample_size = db_int(rows, 0, "sample_size", 0);
    p->color_by = arena_strdup(&sc->arena, db_text(rows, 0, "color_by"));
    p->document_count = db_int(rows, 0, "document_count", 0);
    p->vector_count = db_int(rows, 0, "vector_count", 0);
    p->read_at = arena_strdup(&sc->arena, db_text(rows, 0, "read_at"));
    p->options.seed = (uint64_t)db_int(rows, 0, "seed", 0);
    p->options.n_neighbors = (size_t)json_get_int(parameters, "n_neighbors", 15);
    p->options.min_dist = json_get_real(parameters, "min_dist", 0.1);
    p->options.spread = json_get_real(parameters, "spread", 1);
    p->options.perplexity = json_get_real(parameters, "perplexity", 30);
    p->options.is_cosine = true;
    *out_is_built = db_bool(rows, 0, "is_built");
    if (*out_is_built) /* an earlier attempt came as far as its end */
        task->processed = task->total = db_int(rows, 0, "point_count", 0);
    return STATUS_OK;
}

/* ---- computing ---- */

static bool watch(void *context, const char *stage, double fraction)
{
    struct computation *c = context;
    struct task *task = c->p->task;
    scoped_text data = {0};
    task_heartbeat(task);
    c->status = task_check(c->sc, task);
    if (c->status != STATUS_OK)
        return true;
    int64_t done = (int64_t)(fraction * (double)c->p->count);
    task->processed = done;
    json_open(&data, NULL, '{');
    json_int(&data, "processed", done);
    json_int(&data, "total", (int64_t)c->p->count);
    json_text(&data, "stage", stage);
    char message[96];
    snprintf(message, sizeof message, "%c%s: %.0f %%", (char)(stage[0] - ('a' - 'A')), stage + 1, 100 * fraction);
    json_text(&data, "message", message);
    json_close(&data, '}');
    double percent = FIRST_PERCENT + (LAST_PERCENT - FIRST_PERCENT) * fraction;
    task_event(c->sc, task, "processing_progress", percent, NULL, text_str(&data), 0);
    return false;
}

static enum status compute(struct scope *sc, struct projecting *p, float *positions, struct projection_figures *figures)
{
    struct computation c = {sc, p, STATUS_OK};
    struct crew *crew = crew_new(p->threads, watch, &c);
    bool is_done = projection_compute(crew, &p->points, &p->options, positions, figures);
    crew_free(crew);
    return is_done ? STATUS_OK : c.status;
}

static void put_figure(struct text *t, const char *name, double value)
{
    if (isfinite(value))
        json_real(t, name, round(value * 1e5) / 1e5);
}

static const char *describe(struct scope *sc, const struct projecting *p, const struct projection_figures *f,
                            double seconds)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    put_figure(&t, "trustworthiness", f->trustworthiness);
    put_figure(&t, "kl_divergence", f->divergence);
    put_figure(&t, "variance_shown", f->variance_shown);
    if (f->neighbors > 0)
        json_int(&t, "neighbors", (int64_t)f->neighbors);
    put_figure(&t, "perplexity", f->perplexity);
    json_bool(&t, "is_sample", (int64_t)p->count < p->vector_count);
    json_int(&t, "total_count", p->vector_count);
    json_real(&t, "seconds", round(seconds * 1000) / 1000);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

/* ---- writing ---- */

static void put_u32(struct text *t, uint32_t v)
{
    const unsigned char bytes[4] = {v & 255, v >> 8 & 255, v >> 16 & 255, v >> 24};
    text_append(t, bytes, sizeof bytes);
}

/* As they go out: little-endian, one array after another. */
static void put_arrays(struct text *out, const struct projecting *p, const float *positions)
{
    for (size_t axis = 0; axis < 2; axis++) {
        for (size_t i = 0; i < p->count; i++) {
            uint32_t bits;
            memcpy(&bits, &positions[2 * i + axis], sizeof bits);
            put_u32(out, bits);
        }
    }
    for (size_t i = 0; i < p->count; i++)
        put_u32(out, p->labels[i]);
    for (size_t i = 0; i < p->count; i++) {
        put_u32(out, (uint32_t)p->chunk_ids[i]);
        put_u32(out, (uint32_t)((uint64_t)p->chunk_ids[i] >> 32));
    }
}

static enum status copy_parts(struct scope *sc, const struct projecting *p, const struct text *arrays)
{
    scoped_text data = {0};
    copy_begin(&data);
    for (size_t at = 0, part = 0; at < arrays->len; at += PART_BYTES, part++) {
        copy_row(&data, 3);
        copy_i64(&data, p->id);
        copy_i32(&data, (int32_t)part);
        copy_bytes(&data, arrays->data + at, arrays->len - at < PART_BYTES ? arrays->len - at : PART_BYTES);
    }
    copy_end(&data);
    return db_copy_in(sc, p->task->db, "COPY projection_parts (projection_id, part, data) FROM STDIN BINARY", data.data,
                      data.len);
}

/* The fence comes first as well: who deletes a projection or its collection locks the operation before them. */
static enum status write_result(struct scope *sc, struct projecting *p, const float *positions, const char *figures)
{
    struct task *task = p->task;
    scoped_text arrays = {0};
    scoped(PGresult) *rows = NULL;
    put_arrays(&arrays, p, positions);
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = task_fence(sc, task);
    if (s == STATUS_OK)
        s = db_run(sc, task->db, SQL_PROJECTION_FINISH, &rows, db_number(sc, p->id),
                   p->generation_id ? db_number(sc, p->generation_id) : NULL, db_number(sc, p->document_count),
                   db_number(sc, p->vector_count), p->read_at, db_number(sc, (int64_t)p->count), db_number(sc, p->dim),
                   p->legend_json, figures);
    if (s == STATUS_OK && PQntuples(rows) == 0)
        s = fail(sc, STATUS_INVALID, "The projection was deleted while it was built");
    if (s == STATUS_OK)
        s = copy_parts(sc, p, &arrays);
    (void)FAULT(PROJECTION_WRITTEN, task->operation_id);
    if (s == STATUS_OK)
        return task_commit(sc, task);
    db_rollback(task->db);
    return s;
}

static enum status build(struct scope *sc, struct projecting *p)
{
    struct task *task = p->task;
    struct projection_figures figures;
    int64_t began_ms = clock_monotonic_ms();
    enum status s = projection_read(sc, p);
    (void)FAULT(PROJECTION_READ, task->operation_id);
    if (s != STATUS_OK)
        return s;
    scoped_memory float *positions = must_calloc(p->count + 1, 2 * sizeof *positions);
    task->total = (int64_t)p->count;
    s = compute(sc, p, positions, &figures);
    (void)FAULT(PROJECTION_COMPUTED, task->operation_id);
    if (s != STATUS_OK)
        return s;
    task->processed = task->total;
    const char *json = describe(sc, p, &figures, (double)(clock_monotonic_ms() - began_ms) / 1000);
    s = write_result(sc, p, positions, json);
    (void)FAULT(AFTER_PROJECTION_COMMIT, task->operation_id);
    return s;
}

static int threads_of(const struct settings *settings)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return settings->projection_threads > 0 ? (int)settings->projection_threads : cores > 0 ? (int)cores : 1;
}

enum status projection_build(struct scope *sc, struct task *task)
{
    struct projecting p = {.task = task, .threads = threads_of(task->settings)};
    bool is_built = false;
    task->processed = 0;
    enum status s = task->collection_id ? load(sc, &p, &is_built)
                                        : fail(sc, STATUS_INVALID, "The collection was deleted");
    if (s == STATUS_OK && !is_built)
        s = build(sc, &p);
    projecting_done(&p);
    if (s != STATUS_OK)
        return s;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "projection_id", json_get_text(task->config, "projection_id", NULL));
    json_text(&t, "method", projection_method_name(p.options.method));
    json_int(&t, "point_count", task->processed);
    json_close(&t, '}');
    task->result_json = arena_strdup(&sc->arena, text_str(&t));
    task_event(sc, task, "projection_build_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}
