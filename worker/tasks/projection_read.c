/* The vectors of a projection: a sample of chunks, then their vectors in pages, so that no answer is large and a cancel
 * does not wait. Between the two a document may be replaced; its points are left out. A generation that is switched
 * away and dropped meanwhile is looked up again, once. */
#include "common/clock.h"
#include "common/store/vector_read.h"
#include "worker/tasks/projecting.h"

#include <string.h>

enum { TRIES = 2, READING_PERCENT = 10 };

void projecting_done(struct projecting *p)
{
    free(p->chunk_ids);
    free(p->labels);
    matrix_free(&p->points);
    p->chunk_ids = NULL;
    p->labels = NULL;
    p->count = 0;
}

static int by_chunk(const void *a, const void *b)
{
    const struct projection_point *x = a, *y = b;
    return (x->chunk_id > y->chunk_id) - (x->chunk_id < y->chunk_id);
}

static enum status check_memory(struct scope *sc, const struct projecting *p, size_t points)
{
    int64_t most = p->task->settings->projection_max_mb;
    /* With its points the operation holds their rows for a while, and what goes out. */
    double mb = ((double)projection_bytes(points, (size_t)p->dim, &p->options, p->threads) + (double)points * 120) /
                1e6;
    if (mb <= (double)most)
        return STATUS_OK;
    return fail(sc, STATUS_INVALID,
                "A projection of %zu points takes about %.0f MB, more than the %lld MB that PROJECTION_MAX_MB allows; "
                "ask for a smaller sample_size",
                points, mb, (long long)most);
}

static void take_points(struct projecting *p, const PGresult *rows, struct scope *sc)
{
    p->count = (size_t)PQntuples(rows);
    scoped_text legend = {0};
    scoped_memory struct projection_point *points = must_calloc(p->count + 1, sizeof *points);
    for (size_t i = 0; i < p->count; i++)
        points[i] = (struct projection_point){.chunk_id = db_int(rows, (int)i, "chunk_id", 0),
                                              .key = db_text(rows, (int)i, "label_key"),
                                              .text = db_text(rows, (int)i, "label")};
    qsort(points, p->count, sizeof *points, by_chunk);
    projection_label(points, p->count, &legend);
    p->chunk_ids = must_calloc(p->count + 1, sizeof *p->chunk_ids);
    p->labels = must_calloc(p->count + 1, sizeof *p->labels);
    for (size_t i = 0; i < p->count; i++) {
        p->chunk_ids[i] = points[i].chunk_id;
        p->labels[i] = points[i].label;
    }
    p->legend_json = arena_strdup(&sc->arena, text_str(&legend));
}

static void report(struct scope *sc, const struct projecting *p, size_t read)
{
    scoped_text data = {0};
    json_open(&data, NULL, '{');
    json_int(&data, "processed", 0);
    json_int(&data, "total", (int64_t)p->count);
    json_text(&data, "stage", "reading vectors");
    json_text(&data, "message", arena_printf(&sc->arena, "Read %zu of %zu vectors", read, p->count));
    json_close(&data, '}');
    double percent = READING_PERCENT * (double)read / (double)(p->count ? p->count : 1);
    task_event(sc, p->task, "processing_progress", percent, NULL, text_str(&data), 0);
}

/* Those that were there go together. */
static size_t keep_found(struct projecting *p, size_t kept, size_t from, size_t count, const bool *is_found)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_found[i])
            continue;
        if (kept != from + i)
            memcpy(matrix_row(&p->points, kept), matrix_row(&p->points, from + i), p->points.stride * sizeof(float));
        p->chunk_ids[kept] = p->chunk_ids[from + i];
        p->labels[kept++] = p->labels[from + i];
    }
    return kept;
}

static enum status read_pages(struct scope *sc, struct projecting *p, const struct generation *g)
{
    size_t kept = 0;
    bool is_found[VECTOR_READ_MOST];
    for (size_t from = 0; from < p->count; from += VECTOR_READ_MOST) {
        struct scope own; /* pages' texts are not kept until the end */
        size_t count = p->count - from < VECTOR_READ_MOST ? p->count - from : VECTOR_READ_MOST;
        enum status s = task_check(sc, p->task);
        if (s != STATUS_OK)
            return s;
        scope_init(&own, sc->trace_id);
        s = vector_read(&own, p->task->db, g, p->chunk_ids + from, count, matrix_row(&p->points, from),
                        p->points.stride, is_found);
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
        else
            report(&own, p, from);
        scope_done(&own);
        if (s != STATUS_OK)
            return s;
        kept = keep_found(p, kept, from, count, is_found);
    }
    p->count = p->points.rows = kept;
    return STATUS_OK;
}

static enum status read_once(struct scope *sc, struct projecting *p)
{
    struct generation g;
    enum status s = vector_store_active(sc, p->task->db, p->task->collection_id, &g);
    if (s == STATUS_NOT_FOUND) { /* no vectors yet: a projection of nothing */
        p->legend_json = "[]";
        return STATUS_OK;
    }
    if (s != STATUS_OK)
        return s;
    p->generation_id = g.id;
    p->dim = g.dim;
    int64_t most = p->vector_count < p->sample_size ? p->vector_count : p->sample_size;
    s = check_memory(sc, p, (size_t)(most > 0 ? most : 0));
    if (s == STATUS_OK) {
        scoped(PGresult) *rows = NULL;
        s = vector_read_sample(sc, p->task->db, &g, (int64_t)p->options.seed, p->sample_size, p->color_by, &rows);
        if (s == STATUS_OK)
            take_points(p, rows, sc);
    }
    if (s == STATUS_OK)
        s = check_memory(sc, p, p->count);
    if (s != STATUS_OK)
        return s;
    p->task->total = (int64_t)p->count;
    p->points = matrix_new(p->count, (size_t)g.dim);
    return read_pages(sc, p, &g);
}

enum status projection_read(struct scope *sc, struct projecting *p)
{
    for (int try = 1;; try++) {
        enum status s = read_once(sc, p);
        if (s != STATUS_NOT_FOUND)
            return s;
        scope_forgive(sc);
        projecting_done(p);
        if (try == TRIES)
            return fail(sc, STATUS_UNAVAILABLE, "the collection's vectors were replaced while they were read");
    }
}
