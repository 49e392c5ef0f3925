#include "worker/embed/batcher.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/text.h"
#include "worker/embed/background.h"

#include <pthread.h>
#include <string.h>

enum { BULK_BATCH_US = 50000, SMALLEST_BUDGET = 256, MOST_SEQUENCES = FLIGHT_MOST_TEXTS };

/* The lane of bulk work (of everything, where the backend cannot run beside), and that of queries. */
enum { LANE_BULK, LANE_QUERIES, MOST_LANES = FLIGHT_LANES };

static const char REJECTED[] = "the embedder died twice while it worked on this text, which is not tried again";

struct lane {
    struct batcher *batcher;
    int number;
    pthread_t thread;
    pthread_cond_t work;
    struct batch_job *jobs, **jobs_end; /* with texts not yet taken, or dropped; oldest first */
};

struct batcher {
    const struct embed_backend_api *api;
    void (*on_done)(void *context, struct batch_job *job);
    void (*on_lost)(void *context);
    void *context;
    struct flight *flight;
    int lane_count;
    pthread_mutex_t lock; /* guards all below */
    struct lane lanes[MOST_LANES];
    pthread_cond_t turn;                    /* a lane came to its end */
    int running;                            /* lanes that compute */
    bool is_device_taken, is_device_wanted; /* by a call of run; wanted by bulk work */
    int alone_wanted;                       /* lanes that wait with a suspect for the others to be empty */
    bool is_alone;                          /* a suspect is computed */
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

/* The batch being put together; owner: the thread of its lane. */
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
    bool is_beside;  /* goes through run_beside */
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
static void fill(struct lane *l, struct batch *b, bool is_query, int budget)
{
    for (bool has_taken = true; has_taken;) {
        has_taken = false;
        for (struct batch_job *job = l->jobs; job; job = job->next) {
            if (job->is_query != is_query || job->is_dropped || job->taken == job->count ||
                !fits(l->batcher, b, job, budget))
                continue;
            b->is_suspect = b->input.count == 0 && is_suspect(l->batcher, job);
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

/* What comes meanwhile should not wait for long either: some jobs of queries are large (a validation's), and beside
 * bulk work one thread computes. */
static int query_budget(const struct lane *l)
{
    const struct batcher *r = l->batcher;
    if (l->number != LANE_QUERIES)
        return r->largest_budget;
    return r->is_device_taken ? SMALLEST_BUDGET : bulk_budget(r);
}

/* Moves jobs that are all taken out of the list, and hands dropped ones back. Called with the lock held; returns the
 * dropped ones with nothing in flight, linked. */
static struct batch_job *unlink_taken(struct lane *l)
{
    struct batch_job *over = NULL, **p = &l->jobs;
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
    l->jobs_end = p;
    if (l->jobs && l->jobs->next) { /* the first one chooses the model, so everyone is first in turn */
        struct batch_job *first = l->jobs;
        l->jobs = first->next;
        first->next = NULL;
        *l->jobs_end = first;
        l->jobs_end = &first->next;
    }
    return over;
}

static void settle(struct lane *l, struct batch_job *job, size_t index, enum status status, const char *problem)
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
    struct batcher *r = l->batcher;
    pthread_mutex_lock(&r->lock);
    for (struct batch_job **p = &l->jobs; *p; p = &(*p)->next) {
        if (*p == job) {
            *p = job->next;
            break;
        }
    }
    for (l->jobs_end = &l->jobs; *l->jobs_end;)
        l->jobs_end = &(*l->jobs_end)->next;
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

static enum embed_result run_part(struct lane *l, struct batch *b, int from, int count)
{
    struct batcher *r = l->batcher;
    int32_t *offsets = must_malloc(((size_t)count + 1) * sizeof *offsets);
    for (int i = 0; i <= count; i++)
        offsets[i] = b->offsets[from + i] - b->offsets[from];
    struct embed_batch part = {.ids = b->ids + b->offsets[from], .offsets = offsets, .count = count};
    flight_begin(r->flight, l->number, b->marks + from, (size_t)count);
#ifdef OPSTREAM_FAULTS
    scoped_text ids = {0};
    put_ids(&ids, &part);
    (void)FAULT(EMBED_BATCH, text_str(&ids));
#endif
    float *vectors = b->vectors + (size_t)from * (size_t)b->dim;
    enum embed_result result = b->is_beside ? r->api->run_beside(b->backend, &part, vectors)
                                            : r->api->run(b->backend, &part, vectors);
    flight_end(r->flight, l->number);
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
static void run_range(struct lane *l, struct batch *b, int from, int count)
{
    struct batcher *r = l->batcher;
    if (count == 1 && flight_is_rejected(r->flight, b->marks[from])) {
        settle(l, b->places[from].job, b->places[from].index, STATUS_INVALID, REJECTED);
        return;
    }
    enum embed_result result = run_part(l, b, from, count);
    if (result == EMBED_DEVICE_LOST) {
        r->on_lost(r->context);
        return;
    }
    if (result != EMBED_OK && count > 1) {
        run_range(l, b, from, count / 2);
        run_range(l, b, from + count / 2, count - count / 2);
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
            settle(l, p->job, p->index, STATUS_INVALID, "the model gives no finite vector for this text");
            continue;
        }
        if (status == STATUS_OK)
            memcpy(p->job->vectors + p->index * (size_t)b->dim, vector, (size_t)b->dim * sizeof(float));
        settle(l, p->job, p->index, status, problem);
    }
}

/* ---- whose turn it is ---- */

/* A suspect is computed while nothing else is, so that a crash tells whether it was the one; others let it in first.
 * Called with the lock held. */
static bool may_enter(const struct lane *l, const struct batch *b)
{
    const struct batcher *r = l->batcher;
    if (b->is_suspect ? r->running > 0 : r->is_alone || r->alone_wanted > 0)
        return false;
    return l->number == LANE_QUERIES || !r->is_device_taken;
}

/* Waits for the turn of a batch that is filled, and chooses how it runs: several queries take the whole device while
 * no bulk work has it or waits for it. Called with the lock held. */
static void enter(struct lane *l, struct batch *b)
{
    struct batcher *r = l->batcher;
    r->alone_wanted += b->is_suspect;
    while (!may_enter(l, b)) {
        r->is_device_wanted |= l->number == LANE_BULK;
        pthread_cond_wait(&r->turn, &r->lock);
    }
    r->alone_wanted -= b->is_suspect;
    r->is_alone = b->is_suspect;
    r->running++;
    if (l->number == LANE_BULK)
        r->is_device_wanted = false;
    b->is_beside = l->number == LANE_QUERIES && (b->input.count == 1 || r->is_device_taken || r->is_device_wanted);
    if (!b->is_beside)
        r->is_device_taken = true;
}

/* Called with the lock held. */
static void leave(struct batcher *r, const struct batch *b)
{
    r->running--;
    r->is_alone = false;
    if (!b->is_beside)
        r->is_device_taken = false;
    pthread_cond_broadcast(&r->turn);
}

/* ---- the lanes ---- */

/* Called with the lock held, which is given back meanwhile. */
static void run_batch(struct lane *l, struct batch *b)
{
    struct batcher *r = l->batcher;
    enter(l, b);
    pthread_mutex_unlock(&r->lock);
    size_t floats = (size_t)b->input.count * (size_t)b->dim;
    if (floats > b->vectors_capacity) {
        b->vectors = must_realloc(b->vectors, floats * sizeof *b->vectors);
        b->vectors_capacity = floats;
    }
    (void)FAULT(BATCH_FILLED, NULL);
    int64_t started = clock_monotonic_us();
    int tokens = b->offsets[b->input.count], texts = b->input.count;
    run_range(l, b, 0, texts);
    (void)FAULT(BATCH_COMPUTED, NULL);
    int64_t took = clock_monotonic_us() - started;
    pthread_mutex_lock(&r->lock);
    double rate = took > 0 ? (double)tokens / (double)took : 0;
    if (!b->is_beside && tokens >= SMALLEST_BUDGET / 2 && rate > 0)
        r->tokens_per_us = r->tokens_per_us > 0 ? 0.8 * r->tokens_per_us + 0.2 * rate : rate;
    r->tokens += tokens;
    r->texts += texts;
    r->batches++;
    r->busy_us += took;
    leave(r, b);
}

static void *compute(void *cls)
{
    struct lane *l = cls;
    struct batcher *r = l->batcher;
    struct batch b = {.offsets = must_calloc(MOST_SEQUENCES + 1, sizeof(int32_t))};
    if (l->number == LANE_BULK && r->lane_count > 1)
        thread_into_background();
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!l->jobs && !r->is_stopping)
            pthread_cond_wait(&l->work, &r->lock);
        if (r->is_stopping)
            break;
        b.input.count = 0;
        fill(l, &b, true, query_budget(l));
        if (b.input.count == 0)
            fill(l, &b, false, bulk_budget(r));
        struct batch_job *over = unlink_taken(l);
        pthread_mutex_unlock(&r->lock);
        for (struct batch_job *next; over; over = next) {
            next = over->next;
            over->next = NULL;
            r->on_done(r->context, over);
        }
        pthread_mutex_lock(&r->lock);
        if (b.input.count > 0)
            run_batch(l, &b);
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
    r->largest_budget = batch_tokens < SMALLEST_BUDGET ? SMALLEST_BUDGET : batch_tokens;
    r->lane_count = api->run_beside ? MOST_LANES : 1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->turn, NULL);
    for (int i = 0; i < r->lane_count; i++) {
        struct lane *l = &r->lanes[i];
        l->batcher = r;
        l->number = i;
        l->jobs_end = &l->jobs;
        pthread_cond_init(&l->work, NULL);
        if (pthread_create(&l->thread, NULL, compute, l) != 0)
            abort(); /* as out of memory: the supervisor starts the process anew */
    }
    return r;
}

void batcher_free(struct batcher *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->is_stopping = true;
    for (int i = 0; i < r->lane_count; i++)
        pthread_cond_signal(&r->lanes[i].work);
    pthread_mutex_unlock(&r->lock);
    for (int i = 0; i < r->lane_count; i++) {
        pthread_join(r->lanes[i].thread, NULL);
        pthread_cond_destroy(&r->lanes[i].work);
    }
    pthread_cond_destroy(&r->turn);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static struct lane *lane_of(struct batcher *r, const struct batch_job *job)
{
    return &r->lanes[job->is_query && r->lane_count > 1 ? LANE_QUERIES : LANE_BULK];
}

void batcher_submit(struct batcher *r, struct batch_job *job)
{
    struct lane *l = lane_of(r, job);
    job->bad = SIZE_MAX;
    job->status = STATUS_OK;
    job->next = NULL;
    pthread_mutex_lock(&r->lock);
    *l->jobs_end = job;
    l->jobs_end = &job->next;
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&r->lock);
}

void batcher_drop(struct batcher *r, struct batch_job *job)
{
    pthread_mutex_lock(&r->lock);
    job->is_dropped = true;
    pthread_cond_signal(&lane_of(r, job)->work);
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
