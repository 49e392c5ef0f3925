/* Puts texts of many requests into batches for one backend: queries first, then bulk work in turns, one text from each
 * request at a time, so that a small operation is not stuck behind a large one. Where the backend has run_beside,
 * queries have a lane (a thread) of their own and are computed while a bulk batch runs, whose threads yield to them;
 * else one thread does both, queries first. Any thread may submit. */
#pragma once

#include "common/config.h"
#include "worker/embed/backend.h"
#include "worker/embed/flight.h"
#include "worker/embed/model.h"

/* One request: `count` texts as token ids. Owned by the batcher from submit until on_done got it back. */
struct batch_job {
    struct batch_job *next; /* the batcher's own */
    const struct embed_model *model;
    struct embed_backend *backend; /* of that model */
    bool is_query;
    int32_t *ids;     /* malloc'ed; all texts one after another */
    int32_t *offsets; /* malloc'ed; [count + 1] */
    size_t count;
    float *vectors; /* malloc'ed; [count][dim], filled by the batcher */
    size_t taken, finished;
    _Atomic bool is_dropped; /* nobody waits for it any more */
    enum status status;
    size_t bad;          /* index of the text that was refused, SIZE_MAX = none */
    const char *problem; /* constant text */
    void *owner;
};

struct batcher;

/* `on_done` is called on the thread that computed. `batch_tokens`: the largest batch; bulk batches are kept to about 50
 * ms besides. `flight` must outlive it. `on_lost` is called when the device is gone: the process must end. */
struct batcher *batcher_new(const struct embed_backend_api *api, int batch_tokens, struct flight *flight,
                            void (*on_done)(void *context, struct batch_job *job), void (*on_lost)(void *context),
                            void *context);
void batcher_free(struct batcher *b);
void batcher_submit(struct batcher *b, struct batch_job *job);
/* The job's remaining texts are skipped; it still comes back through on_done. */
void batcher_drop(struct batcher *b, struct batch_job *job);
/* Totals since the start; what ran side by side counts twice as busy. */
void batcher_totals(struct batcher *b, int64_t *out_tokens, int64_t *out_texts, int64_t *out_batches,
                    int64_t *out_busy_us);

void batch_job_free(struct batch_job *job);
