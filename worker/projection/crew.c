#include "worker/projection/crew.h"

#include "common/arena.h"
#include "common/clock.h"

#include <pthread.h>
#include <stdatomic.h>

enum { WATCH_MS = 100, MOST_THREADS = 64 };

struct helper {
    struct crew *crew;
    pthread_t thread;
    int number;
};

struct crew {
    crew_watch *watch;
    void *context;
    int64_t watched_ms;
    const char *stage;
    double from, to, done;
    int threads;
    struct helper helpers[MOST_THREADS];
    _Atomic bool is_stopped;

    /* The blocks that are being shared out. */
    crew_work *work;
    void *work_context;
    size_t items, grain;
    _Atomic size_t next;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t begun, ended;
    unsigned round; /* rises with every share-out */
    bool is_open;   /* blocks may be left of it */
    int busy;       /* helpers that are at it */
    bool is_over;
};

int crew_threads(const struct crew *crew)
{
    return crew->threads;
}

bool crew_is_stopped(const struct crew *crew)
{
    return atomic_load_explicit(&crew->is_stopped, memory_order_relaxed);
}

void crew_stage(struct crew *crew, const char *stage, double from, double to)
{
    crew->stage = stage;
    crew->from = from;
    crew->to = to;
    (void)crew_report(crew, 0);
}

static bool ask(struct crew *crew)
{
    int64_t now = clock_monotonic_ms();
    if (!crew->watch || now - crew->watched_ms < WATCH_MS || crew_is_stopped(crew))
        return crew_is_stopped(crew);
    crew->watched_ms = now;
    if (crew->watch(crew->context, crew->stage, crew->from + (crew->to - crew->from) * crew->done))
        atomic_store(&crew->is_stopped, true);
    return crew_is_stopped(crew);
}

bool crew_report(struct crew *crew, double done)
{
    crew->done = done;
    return ask(crew);
}

bool crew_poll(struct crew *crew, int thread)
{
    return thread == 0 ? ask(crew) : crew_is_stopped(crew);
}

static void take_blocks(struct crew *crew, int thread, bool reports)
{
    while (!crew_is_stopped(crew)) {
        size_t from = atomic_fetch_add(&crew->next, crew->grain);
        if (from >= crew->items)
            return;
        size_t left = crew->items - from;
        crew->work(crew->work_context, from, from + (left < crew->grain ? left : crew->grain), thread);
        if (thread == 0) {
            if (reports)
                crew->done = (double)from / (double)crew->items;
            (void)ask(crew);
        }
    }
}

static void *help(void *context)
{
    struct helper *h = context;
    struct crew *crew = h->crew;
    unsigned seen = 0;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (crew->round == seen && !crew->is_over)
            pthread_cond_wait(&crew->begun, &crew->lock);
        if (crew->is_over)
            break;
        seen = crew->round;
        if (!crew->is_open)
            continue;
        crew->busy++;
        pthread_mutex_unlock(&crew->lock);
        take_blocks(crew, h->number, false);
        pthread_mutex_lock(&crew->lock);
        if (--crew->busy == 0)
            pthread_cond_signal(&crew->ended);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

struct crew *crew_new(int threads, crew_watch *watch, void *context)
{
    struct crew *crew = must_calloc(1, sizeof *crew);
    crew->watch = watch;
    crew->context = context;
    crew->stage = "";
    crew->threads = 1;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->begun, NULL);
    pthread_cond_init(&crew->ended, NULL);
    for (int i = 1; i < threads && i < MOST_THREADS; i++) {
        struct helper *h = &crew->helpers[i];
        *h = (struct helper){.crew = crew, .number = i};
        if (pthread_create(&h->thread, NULL, help, h) != 0)
            break; /* fewer do it as well */
        crew->threads++;
    }
    return crew;
}

void crew_free(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    crew->is_over = true;
    pthread_cond_broadcast(&crew->begun);
    pthread_mutex_unlock(&crew->lock);
    for (int i = 1; i < crew->threads; i++)
        pthread_join(crew->helpers[i].thread, NULL);
    pthread_cond_destroy(&crew->begun);
    pthread_cond_destroy(&crew->ended);
    pthread_mutex_destroy(&crew->lock);
    free(crew);
}

/* Who comes when all blocks are taken is not waited for: on a busy machine a round would take as long as the slowest
 * helper takes to wake up. */
static bool share_out(struct crew *crew, size_t items, size_t grain, crew_work *work, void *context, bool reports)
{
    bool is_alone = crew->threads == 1 || items <= grain;
    crew->work = work;
    crew->work_context = context;
    crew->items = items;
    crew->grain = grain;
    atomic_store(&crew->next, 0);
    if (!is_alone) {
        pthread_mutex_lock(&crew->lock);
        crew->is_open = true;
        crew->round++;
        pthread_cond_broadcast(&crew->begun);
        pthread_mutex_unlock(&crew->lock);
    }
    take_blocks(crew, 0, reports);
    if (!is_alone) {
        pthread_mutex_lock(&crew->lock);
        crew->is_open = false;
        while (crew->busy > 0)
            pthread_cond_wait(&crew->ended, &crew->lock);
        pthread_mutex_unlock(&crew->lock);
    }
    return !crew_is_stopped(crew);
}

bool crew_run(struct crew *crew, size_t items, size_t grain, crew_work *work, void *context)
{
    return share_out(crew, items, grain, work, context, true);
}

bool crew_round(struct crew *crew, size_t items, size_t grain, crew_work *work, void *context)
{
    return share_out(crew, items, grain, work, context, false);
}
