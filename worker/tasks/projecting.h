/* PROJECTION_BUILD's parts: what it reads (projection_read.c), how points are coloured (projection_labels.c), and the
 * operation itself (projection_build.c). */
#pragma once

#include "common/store/vector_store.h"
#include "worker/projection/projection.h"
#include "worker/task.h"

enum { PROJECTION_LABELS = 1000 }; /* different ones; what is left is "other" */

/* One point on its way: which chunk it is, and its label. Strings live as long as the sample's rows. */
struct projection_point {
    int64_t chunk_id;
    const char *key, *text; /* what it is coloured by: two things may have the same text */
    uint32_t label;
};

struct projecting {
    struct task *task;
    struct projection_options options;
    int threads;
    int64_t id; /* of its row */
    int64_t sample_size;
    const char *color_by;
    /* Of the collection when it was read. */
    int64_t document_count, vector_count, generation_id; /* 0 = none */
    const char *read_at;
    int dim;

    size_t count;
    int64_t *chunk_ids; /* [count] ascending */
    uint32_t *labels;   /* [count] */
    struct matrix points;
    const char *legend_json;
};

/* Chooses chunks and reads their vectors. STATUS_INVALID when it would take more memory than PROJECTION_MAX_MB.
 * projecting_done() whatever comes. */
enum status projection_read(struct scope *sc, struct projecting *p) must_check;
void projecting_done(struct projecting *p);
/* Numbers the labels, the most frequent first, and writes the legend: [{"label", "text", "count"}]. */
void projection_label(struct projection_point *points, size_t count, struct text *legend);
