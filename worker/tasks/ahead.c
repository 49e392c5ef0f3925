#include "worker/tasks/ahead.h"

#include "common/clock.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_READERS = 16, WAITING_BYTES = 32 << 20, STEP_MS = 100 };

struct reader {
    struct ahead *ahead;
    struct scope sc; /* lives as long as the reader: notes */
    struct reading reading;
    pthread_t thread;
};

struct slot {
    struct ahead_document *document;
    enum status status;
    const char *problem, *note; /* the reader's */
    bool is_read;
};

/* Documents are numbered in the order in which they are given: taken <= begun <= given. */
struct ahead {
    struct scope *sc;
    struct reading *base;
    struct reader readers[MOST_READERS];
    size_t reader_count;
    atomic_bool has_to_stop;
    atomic_uint signs_of_life;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, news;
    struct slot slots[AHEAD_MOST];
    size_t given, begun, taken;
    size_t waiting_bytes; /* of what was read and not taken */
};

static struct slot *slot_of(struct ahead *a, size_t number)
{
    return &a->slots[number % AHEAD_MOST];
}

void ahead_document_free(struct ahead_document *d)
{
    if (!d)
        return;
    scope_done(&d->sc);
    free(d);
}

/* ---- a reader ---- */

static bool has_to_stop(void *context)
{
    struct reader *r = context;
    atomic_fetch_add(&r->ahead->signs_of_life, 1);
    return atomic_load(&r->ahead->has_to_stop);
}

/* What is waited for is read whatever else waits, or nothing would go on. */
static bool may_begin(const struct ahead *a)
{
    return a->begun < a->given && (a->waiting_bytes < WAITING_BYTES || a->begun == a->taken);
}

static void read_one(struct reader *r, struct slot *slot)
{
    struct ahead *a = r->ahead;
    struct ahead_document *d = slot->document;
    pthread_mutex_unlock(&a->lock);
    atomic_fetch_add(&a->signs_of_life, 1);
    enum status s = reading_document(&r->sc, &d->sc, &r->reading, &d->ready);
    atomic_fetch_add(&a->signs_of_life, 1);
    pthread_mutex_lock(&a->lock);
    slot->status = s;
    slot->problem = r->sc.problem_text;
    slot->note = r->reading.note;
    slot->is_read = true;
    a->waiting_bytes += d->sc.arena.used_bytes;
    pthread_cond_signal(&a->news);
}

static void *reader_main(void *context)
{
    struct reader *r = context;
    struct ahead *a = r->ahead;
    pthread_mutex_lock(&a->lock);
    while (!atomic_load(&a->has_to_stop)) {
        if (may_begin(a))
            read_one(r, slot_of(a, a->begun++));
        else
            pthread_cond_wait(&a->work, &a->lock);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* ---- who asks ---- */

static size_t readers_of(int wanted)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long most = cores < 1 ? 1 : cores > MOST_READERS ? MOST_READERS : cores;
    return (size_t)(wanted < 1 ? 1 : wanted > most ? most : wanted);
}

/* Signals are the main thread's. */
static bool start_reader(struct reader *r)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool is_started = pthread_create(&r->thread, NULL, reader_main, r) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_started;
}

struct ahead *ahead_new(struct scope *sc, struct reading *reading, int readers)
{
    struct ahead *a = must_calloc(1, sizeof *a);
    pthread_condattr_t attributes;
    a->sc = sc;
    a->base = reading;
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&a->work, &attributes);
    pthread_cond_init(&a->news, &attributes);
    pthread_condattr_destroy(&attributes);
    size_t wanted = readers_of(readers);
    while (a->reader_count < wanted) {
        struct reader *r = &a->readers[a->reader_count];
        r->ahead = a;
        scope_init(&r->sc, sc->trace_id);
        reading_share(&r->reading, reading, has_to_stop, r);
        if (!start_reader(r)) {
            reading_unshare(&r->reading);
            scope_done(&r->sc);
            break;
        }
        a->reader_count++;
    }
    return a;
}

void ahead_free(struct ahead *a)
{
    pthread_mutex_lock(&a->lock);
    atomic_store(&a->has_to_stop, true);
    pthread_cond_broadcast(&a->work);
    pthread_mutex_unlock(&a->lock);
    for (size_t i = 0; i < a->reader_count; i++)
        pthread_join(a->readers[i].thread, NULL);
    for (size_t i = 0; i < a->reader_count; i++)
        reading_unshare(&a->readers[i].reading);
    for (; a->taken < a->given; a->taken++)
        ahead_document_free(slot_of(a, a->taken)->document);
    for (size_t i = 0; i < a->reader_count; i++)
        scope_done(&a->readers[i].sc);
    pthread_cond_destroy(&a->work);
    pthread_cond_destroy(&a->news);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void ahead_give(struct ahead *a, const struct pending_document *from)
{
    struct ahead_document *d = must_calloc(1, sizeof *d);
    scope_init(&d->sc, a->sc->trace_id);
    struct arena *arena = &d->sc.arena;
    d->from = *from;
    d->from.path.bytes = arena_strndup(arena, from->path.bytes, from->path.len);
    d->from.name = arena_strdup(arena, from->name);
    d->from.hash = arena_strdup(arena, from->hash);
    d->from.source_path = arena_strdup(arena, from->source_path);
    d->ready.from = &d->from;
    pthread_mutex_lock(&a->lock);
    *slot_of(a, a->given++) = (struct slot){.document = d};
    pthread_cond_signal(&a->work);
    pthread_mutex_unlock(&a->lock);
}

/* Only the thread that gives and takes changes these two. */
size_t ahead_count(const struct ahead *a)
{
    return a->given - a->taken;
}

const struct pending_document *ahead_given(const struct ahead *a, size_t i)
{
    return &a->slots[(a->taken + i) % AHEAD_MOST].document->from;
}

static void wait_for_news(struct ahead *a)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += STEP_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&a->news, &a->lock, &until);
}

/* A reader that hangs (a share that went away) gives no sign, and the child falls silent as it should. */
static enum status wait_until_read(struct scope *sc, struct ahead *a, const struct slot *slot)
{
    struct task *task = a->base->task;
    unsigned seen = atomic_load(&a->signs_of_life);
    enum status s = STATUS_OK;
    while (s == STATUS_OK && !slot->is_read) {
        wait_for_news(a);
        pthread_mutex_unlock(&a->lock);
        unsigned now = atomic_load(&a->signs_of_life);
        if (now != seen)
            task_heartbeat(task);
        seen = now;
        s = task_check(sc, task);
        pthread_mutex_lock(&a->lock);
    }
    return s;
}

enum status ahead_take(struct scope *sc, struct ahead *a, struct ahead_document **out)
{
    if (a->reader_count == 0)
        return fail(sc, STATUS_BUSY, "no thread could be started to read documents");
    pthread_mutex_lock(&a->lock);
    struct slot *slot = slot_of(a, a->taken);
    enum status s = wait_until_read(sc, a, slot);
    if (s == STATUS_OK)
        s = slot->status == STATUS_OK ? STATUS_OK
                                      : fail(sc, slot->status, "%s", slot->problem ? slot->problem : "reading failed");
    if (s == STATUS_OK) {
        *out = slot->document;
        a->waiting_bytes -= slot->document->sc.arena.used_bytes;
        a->taken++;
        if (slot->note && !a->base->note)
            a->base->note = arena_strdup(&a->sc->arena, slot->note);
        pthread_cond_broadcast(&a->work);
    }
    pthread_mutex_unlock(&a->lock);
    return s;
}
