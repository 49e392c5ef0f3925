#include "worker/embed/batcher.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/text.h"

#include <pthread.h>
#include <string.h>

enum { BULK_BATCH_US = 50000, SMALLEST_BUDGET = 256, MOST_SEQUENCES = FLIGHT_MOST_TEXTS };

static const char REJECTED[] = "the embedder died twice while it worked on this text, which is not tried again";

struct batcher {
    const struct embed_backend_api *api;
    void (*on_done)(void *context, struct batch_job *job);
    void (*on_lost)(void *context);
    void *context;
    struct flight *flight; /* the compute thread's */
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;
    struct batch_job *jobs, **jobs_end; /* with texts not yet taken, or dropped; oldest first */
    bool is_stopping;
    int largest_budget;
    double tokens_per_us; /* running mean; 0 = not measured yet */
    int64_t tokens, texts, batches, busy_us;
};

/* Which text of which job a sequence of the batch is. */
struct place {
    struct batch_job *job;
    size_t index;
};

/* The batch being put together; owner: the compute thread. */
struct batch {
    struct embed_batch input;
    int32_t *ids, *offsets;
    size_t ids_capacity;
    struct place places[MOST_SEQUENCES];
    float *vectors;
    size_t vectors_capacity;
    struct embed_backend *backend;
    int dim;
    uint64_t marks[MOST_SEQUENCES];
    bool is_suspect; /* its one text is */
};

void batch_job_free(struct batch_job *job)
{
    if (!job)
        return;
    free(job->ids);
    free(job->offsets);
    free(job->vectors);
    free(job);
}

static int32_t text_tokens(const struct batch_job *job, size_t i)
{
    return job->offsets[i + 1] - job->offsets[i];
}

static void batch_add(struct batch *b, struct batch_job *job)
{
    size_t i = job->taken++;
    size_t used = (size_t)b->offsets[b->input.count], n = (size_t)text_tokens(job, i);
    if (!b->ids || used + n > b->ids_capacity) {
        b->ids_capacity = (used + n) * 2;
        b->ids = must_realloc(b->ids, b->ids_capacity * sizeof *b->ids);
    }
    memcpy(b->ids + used, job->ids + job->offsets[i], n * sizeof *b->ids);
    b->marks[b->input.count] = flight_mark(b->ids + used, n);
    b->places[b->input.count] = (struct place){job, i};
    b->offsets[++b->input.count] = (int32_t)(used + n);
    b->backend = job->backend;
    b->dim = job->model->dim;
}

static bool is_suspect(const struct batcher *r, const struct batch_job *job)
{
    const int32_t *ids = job->ids + job->offsets[job->taken];
    return flight_is_suspect(r->flight, flight_mark(ids, (size_t)text_tokens(job, job->taken)));
}

static bool fits(const struct batcher *r, const struct batch *b, const struct batch_job *job, int budget)
{
    if (b->input.count == 0)
        return true;
    if (b->is_suspect || is_suspect(r, job))
        return false;
    return job->backend == b->backend && b->input.count < MOST_SEQUENCES &&
           b->offsets[b->input.count] + text_tokens(job, job->taken) <= budget;
}

/* One pass takes a text from each job of the kind; passes go on until the budget is full. Called with the lock held. */
static void fill(struct batcher *r, struct batch *b, bool is_query, int budget)
{
    for (bool has_taken = true; has_taken;) {
        has_taken = false;
        for (struct batch_job *job = r->jobs; job; job = job->next) {
            if (job->is_query != is_query || job->is_dropped || job->taken == job->count || !fits(r, b, job, budget))
                continue;
            b->is_suspect = b->input.count == 0 && is_suspect(r, job);
            batch_add(b, job);
            has_taken = true;
        }
    }
}

static int bulk_budget(const struct batcher *r)
{
    double budget = r->tokens_per_us > 0 ? r->tokens_per_us * BULK_BATCH_US : SMALLEST_BUDGET;
    if (budget < SMALLEST_BUDGET)
        budget = SMALLEST_BUDGET;
    return budget > r->largest_budget ? r->largest_budget : (int)budget;
}

/* Moves jobs that are all taken out of the list, and hands dropped ones back. Called with the lock held; returns the
 * dropped ones with nothing in flight, linked. */
static struct batch_job *unlink_taken(struct batcher *r)
{
    struct batch_job *over = NULL, **p = &r->jobs;
    while (*p) {
        struct batch_job *job = *p;
        if (!job->is_dropped && job->taken < job->count) {
            p = &job->next;
            continue;
        }
        *p = job->next;
        job->next = NULL;
        if (job->is_dropped && job->taken == job->finished) {
            job->status = STATUS_CANCELLED;
            job->problem = "dropped";
            job->next = over;
            over = job;
        }
    }
    r->jobs_end = p;
    if (r->jobs && r->jobs->next) { /* the first one chooses the model, so everyone is first in turn */
        struct batch_job *first = r->jobs;
        r->jobs = first->next;
        first->next = NULL;
        *r->jobs_end = first;
        r->jobs_end = &first->next;
    }
    return over;
}

static void settle(struct batcher *r, struct batch_job *job, size_t index, enum status status, const char *problem)
{
    if (status != STATUS_OK && job->status == STATUS_OK) {
        job->status = status;
        job->problem = problem;
        job->bad = index;
        job->is_dropped = true; /* the rest is of no use */
    }
    job->finished++;
    bool is_over = job->finished == job->count || (job->is_dropped && job->finished == job->taken);
    if (!is_over)
        return;
    pthread_mutex_lock(&r->lock);
    for (struct batch_job **p = &r->jobs; *p; p = &(*p)->next) {
        if (*p == job) {
            *p = job->next;
            break;
        }
    }
    for (r->jobs_end = &r->jobs; *r->jobs_end;)
        r->jobs_end = &(*r->jobs_end)->next;
    pthread_mutex_unlock(&r->lock);
    job->next = NULL;
    r->on_done(r->context, job);
}

#ifdef OPSTREAM_FAULTS
static void put_ids(struct text *out, const struct embed_batch *part)
{
    for (int i = 0; i < part->offsets[part->count]; i++)
        text_printf(out, " %d ", (int)part->ids[i]);
}
#endif

static enum embed_result run_part(struct batcher *r, struct batch *b, int from, int count)
{
    int32_t *offsets = must_malloc(((size_t)count + 1) * sizeof *offsets);
    for (int i = 0; i <= count; i++)
        offsets[i] = b->offsets[from + i] - b->offsets[from];
    struct embed_batch part = {.ids = b->ids + b->offsets[from], .offsets = offsets, .count = count};
    flight_begin(r->flight, b->marks + from, (size_t)count);
#ifdef OPSTREAM_FAULTS
    scoped_text ids = {0};
    put_ids(&ids, &part);
    (void)FAULT(EMBED_BATCH, text_str(&ids));
#endif
    enum embed_result result = r->api->run(b->backend, &part, b->vectors + (size_t)from * (size_t)b->dim);
    flight_end(r->flight);
    free(offsets);
    return result;
}

/* A model with damaged weights may give NaN, which no vector store takes. */
static bool is_finite(const float *vector, int dim)
{
    float sum = 0; /* 0 as long as all are finite: infinity and NaN times 0 are NaN */
    for (int i = 0; i < dim; i++)
        sum += vector[i] * 0;
    return sum == 0;
}

/* Runs sequences [from, from + count). What does not fit into memory, or is refused, is tried in halves until the
 * single text is known. */
static void run_range(struct batcher *r, struct batch *b, int from, int count)
{
    if (count == 1 && flight_is_rejected(r->flight, b->marks[from])) {
        settle(r, b->places[from].job, b->places[from].index, STATUS_INVALID, REJECTED);
        return;
    }
    enum embed_result result = run_part(r, b, from, count);
    if (result == EMBED_DEVICE_LOST) {
        r->on_lost(r->context);
        return;
    }
    if (result != EMBED_OK && count > 1) {
        run_range(r, b, from, count / 2);
        run_range(r, b, from + count / 2, count - count / 2);
        return;
    }
    enum status status = result == EMBED_OK              ? STATUS_OK
                         : result == EMBED_OUT_OF_MEMORY ? STATUS_NO_SPACE
                                                         : STATUS_INVALID;
    const char *problem = result == EMBED_OUT_OF_MEMORY ? "the device has not enough memory for this text"
                                                        : "the model refuses this text";
    for (int i = from; i < from + count; i++) {
        struct place *p = &b->places[i];
        const float *vector = b->vectors + (size_t)i * (size_t)b->dim;
        if (status == STATUS_OK && !is_finite(vector, b->dim)) {
            settle(r, p->job, p->index, STATUS_INVALID, "the model gives no finite vector for this text");
            continue;
        }
        if (status == STATUS_OK)
            memcpy(p->job->vectors + p->index * (size_t)b->dim, vector, (size_t)b->dim * sizeof(float));
        settle(r, p->job, p->index, status, problem);
    }
}

static void run_batch(struct batcher *r, struct batch *b)
{
    size_t floats = (size_t)b->input.count * (size_t)b->dim;
    if (floats > b->vectors_capacity) {
        b->vectors = must_realloc(b->vectors, floats * sizeof *b->vectors);
        b->vectors_capacity = floats;
    }
    int64_t started = clock_monotonic_us();
    int tokens = b->offsets[b->input.count], texts = b->input.count;
    run_range(r, b, 0, texts);
    int64_t took = clock_monotonic_us() - started;
    pthread_mutex_lock(&r->lock);
    double rate = took > 0 ? (double)tokens / (double)took : 0;
    if (tokens >= SMALLEST_BUDGET / 2 && rate > 0)
        r->tokens_per_us = r->tokens_per_us > 0 ? 0.8 * r->tokens_per_us + 0.2 * rate : rate;
    r->tokens += tokens;
    r->texts += texts;
    r->batches++;
    r->busy_us += took;
    pthread_mutex_unlock(&r->lock);
}

static void *compute(void *cls)
{
    struct batcher *r = cls;
    struct batch b = {.offsets = must_calloc(MOST_SEQUENCES + 1, sizeof(int32_t))};
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->jobs && !r->is_stopping)
            pthread_cond_wait(&r->work, &r->lock);
        if (r->is_stopping)
            break;
        b.input.count = 0;
        fill(r, &b, true, r->largest_budget);
        if (b.input.count == 0)
            fill(r, &b, false, bulk_budget(r));
        struct batch_job *over = unlink_taken(r);
        pthread_mutex_unlock(&r->lock);
        for (struct batch_job *next; over; over = next) {
            next = over->next;
            over->next = NULL;
            r->on_done(r->context, over);
        }
        if (b.input.count > 0)
            run_batch(r, &b);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    free(b.ids);
    free(b.offsets);
    free(b.vectors);
    return NULL;
}

struct batcher *batcher_new(const struct embed_backend_api *api, int batch_tokens, struct flight *flight,
                            void (*on_done)(void *context, struct batch_job *job), void (*on_lost)(void *context),
                            void *context)
{
    struct batcher *r = must_calloc(1, sizeof *r);
    r->api = api;
    r->flight = flight;
    r->on_done = on_done;
    r->on_lost = on_lost;
    r->context = context;
    r->jobs_end = &r->jobs;
    r->largest_budget = batch_tokens < SMALLEST_BUDGET ? SMALLEST_BUDGET : batch_tokens;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    if (pthread_create(&r->thread, NULL, compute, r) != 0)
        abort(); /* as out of memory: the supervisor starts the process anew */
    return r;
}

void batcher_free(struct batcher *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->is_stopping = true;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->work);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void batcher_submit(struct batcher *r, struct batch_job *job)
{
    job->bad = SIZE_MAX;
    job->status = STATUS_OK;
    job->next = NULL;
    pthread_mutex_lock(&r->lock);
    *r->jobs_end = job;
    r->jobs_end = &job->next;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
}

void batcher_drop(struct batcher *r, struct batch_job *job)
{
    pthread_mutex_lock(&r->lock);
    job->is_dropped = true;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
}

void batcher_totals(struct batcher *r, int64_t *out_tokens, int64_t *out_texts, int64_t *out_batches,
                    int64_t *out_busy_us)
{
    pthread_mutex_lock(&r->lock);
    *out_tokens = r->tokens;
    *out_texts = r->texts;
    *out_batches = r->batches;
    *out_busy_us = r->busy_us;
    pthread_mutex_unlock(&r->lock);
}
