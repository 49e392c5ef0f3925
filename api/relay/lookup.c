#include "api/relay/lookup.h"

#include "common/log.h"

#include <pthread.h>

enum { STATEMENT_TIMEOUT_MS = 5000, REDIS_TIMEOUT_MS = 1000, STACK_BYTES = 512 << 10, MOST_THREADS = 16 };

struct told {
    struct told *next;
    void (*tell)(void *context);
    void *context;
};

struct lookup {
    const struct settings *settings;
    int thread_count, queue_max;
    int slow_max; /* threads for what is not urgent */
    pthread_t threads[MOST_THREADS];
    uv_async_t wake;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t has_job;
    struct job *urgent, **last_urgent, *first, **last, *ended, **last_ended;
    int at_work; /* threads that do what is not urgent */
    struct told *told, **last_told;
    int waiting;
    bool is_stopping;
};

static void append_job(struct job ***last, struct job *job)
{
    job->next = NULL;
    **last = job;
    *last = &job->next;
}

/* Cuts the first off a list; NULL = it is empty. */
static struct job *take(struct job **first, struct job ***last)
{
    struct job *job = *first;
    if (!job)
        return NULL;
    *first = job->next;
    if (!*first)
        *last = first;
    return job;
}

/* One thread at least is kept for what is urgent: while PostgreSQL does not answer, what it is asked would hold up what
 * Redis alone is asked. */
static bool may_take_slow(const struct lookup *l)
{
    return l->first && l->at_work < l->slow_max;
}

/* NULL = the end. */
static struct job *next_job(struct lookup *l, bool *out_is_stopping)
{
    pthread_mutex_lock(&l->lock);
    while (!l->urgent && !may_take_slow(l) && !(l->is_stopping && !l->first))
        pthread_cond_wait(&l->has_job, &l->lock);
    struct job *job = take(&l->urgent, &l->last_urgent);
    if (!job && (job = take(&l->first, &l->last)))
        l->at_work++;
    *out_is_stopping = l->is_stopping;
    if (job)
        l->waiting--;
    pthread_mutex_unlock(&l->lock);
    return job;
}

static void note_ended(struct lookup *l, struct job *job)
{
    pthread_mutex_lock(&l->lock);
    if (!job->is_urgent) {
        l->at_work--;
        if (l->first || l->is_stopping)
            pthread_cond_broadcast(&l->has_job); /* others may have waited for that */
    }
    append_job(&l->last_ended, job);
    pthread_mutex_unlock(&l->lock);
    uv_async_send(&l->wake);
}

static void *work(void *context)
{
    struct lookup *l = context;
    const struct settings *s = l->settings;
    struct lookup_tools tools = {
        .settings = s,
        .db = db_new(&(struct db_options){.url = s->database_url,
                                          .application_name = "opstream-relay",
                                          .statement_timeout_ms = STATEMENT_TIMEOUT_MS}),
        .events = redis_new(&(struct redis_options){.url = s->redis_url,
                                                    .database = (int)s->redis_stream_db,
                                                    .prefix = s->redis_prefix,
                                                    .timeout_ms = REDIS_TIMEOUT_MS}),
    };
    bool is_stopping;
    for (struct job *job; (job = next_job(l, &is_stopping));) {
        if (job->is_urgent || !is_stopping)
            job->run(job, &tools);
        note_ended(l, job);
    }
    redis_free(tools.events);
    db_free(tools.db);
    return NULL;
}

static void end_jobs(struct lookup *l)
{
    pthread_mutex_lock(&l->lock);
    struct told *told = l->told;
    l->told = NULL;
    l->last_told = &l->told;
    struct job *job = l->ended;
    l->ended = NULL;
    l->last_ended = &l->ended;
    pthread_mutex_unlock(&l->lock);
    for (struct told *next; told; told = next) { /* what a job told comes before its end */
        next = told->next;
        told->tell(told->context);
        free(told);
    }
    for (struct job *next; job; job = next) {
        next = job->next;
        job->end(job);
    }
}

static void on_wake(uv_async_t *wake)
{
    end_jobs(wake->data);
}

static void join_threads(struct lookup *l)
{
    pthread_mutex_lock(&l->lock);
    l->is_stopping = true;
    pthread_cond_broadcast(&l->has_job);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    l->thread_count = 0;
}

enum status lookup_new(struct scope *sc, uv_loop_t *loop, const struct settings *settings, int threads, int queue_max,
                       struct lookup **out)
{
    struct lookup *l = must_calloc(1, sizeof *l);
    l->settings = settings;
    l->queue_max = queue_max;
    l->last = &l->first;
    l->last_urgent = &l->urgent;
    l->slow_max = threads > 1 ? threads - 1 : 1;
    l->last_ended = &l->ended;
    l->last_told = &l->told;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->has_job, NULL);
    if (uv_async_init(loop, &l->wake, on_wake) != 0) {
        free(l);
        return fail(sc, STATUS_INTERNAL, "the relay's loop cannot be woken");
    }
    l->wake.data = l;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (int i = 0; i < threads && i < MOST_THREADS; i++) {
        if (pthread_create(&l->threads[i], &attr, work, l) != 0)
            break;
        l->thread_count++;
    }
    pthread_attr_destroy(&attr);
    *out = l;
    if (l->thread_count == 0)
        return fail(sc, STATUS_INTERNAL, "the relay's threads cannot be started");
    return STATUS_OK;
}

bool lookup_submit(struct lookup *l, struct job *job, bool is_urgent)
{
    pthread_mutex_lock(&l->lock);
    bool is_taken = !l->is_stopping && (is_urgent || l->waiting < l->queue_max);
    job->is_urgent = is_urgent;
    if (is_taken) {
        append_job(is_urgent ? &l->last_urgent : &l->last, job);
        l->waiting++;
        pthread_cond_signal(&l->has_job);
    }
    pthread_mutex_unlock(&l->lock);
    return is_taken;
}

void lookup_tell(struct lookup *l, void (*tell)(void *context), void *context)
{
    struct told *t = must_malloc(sizeof *t);
    *t = (struct told){.tell = tell, .context = context};
    pthread_mutex_lock(&l->lock);
    *l->last_told = t;
    l->last_told = &t->next;
    pthread_mutex_unlock(&l->lock);
    uv_async_send(&l->wake);
}

void lookup_stop(struct lookup *l)
{
    if (!l)
        return;
    join_threads(l);
    end_jobs(l); /* the threads have left no job */
    uv_close((uv_handle_t *)&l->wake, NULL);
}

void lookup_free(struct lookup *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->has_job);
    free(l);
}
