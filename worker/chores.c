#include "worker/chores.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/store/document_store.h"
#include "common/store/operation_store.h"
#include "common/store/staging_store.h"
#include "worker/embed/client.h"
#include "worker/settle.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SWEEP_MS = 1000,
    EMBEDDER_MS = 1000,
    EMBEDDER_START_MS = 50,
    INFO_TIMEOUT_MS = 1000,
    ROOTS_MS = 5000,
    LEFTOVERS_MS = 20000,
    LEFTOVERS_MOST_MS = 2000,
    LEFTOVERS_SOON_MS = 1000,
    STATEMENT_MS = 30000,
};

static const char NO_ROOT[] = "a directory of OPSTREAM_SOURCE_ROOTS cannot be seen";
static const char NO_EMBEDDER[] = "the embedder is not ready";

/* What is done from time to time. */
struct chore {
    void (*run)(struct scope *sc, struct chores *c);
    int64_t every_ms, due_ms;
};

/* A thread with connections and chores of its own. */
struct crew {
    struct chores *chores;
    const char *role;
    struct db *db;
    char session_name[64];
    struct chore list[4];
    size_t count;
    pthread_t thread;
};

struct chores {
    const struct settings *settings;
    struct lease *lease;
    int wake_fd;
    /* Others' operations are not kept waiting by a lock or a share that hangs. */
    struct crew sweeper, keeper;
    struct redis *queue, *events; /* the sweeper's */
    struct operation_reconciler reconciler;
    struct embed_client *embedder; /* the keeper's, like what follows */
    struct {
        int64_t tokens, texts, batches;
        double busy_seconds;
    } seen;               /* totals of the embedder that were counted already */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool has_to_stop, is_embedder_ready, has_roots, has_leftovers;
};

static void wake(const struct chores *c)
{
    ssize_t n = write(c->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)n;
}

/* ---- the embedder ---- */

static void set_embedder(struct chores *c, bool is_ready)
{
    pthread_mutex_lock(&c->lock);
    bool is_news = c->is_embedder_ready != is_ready;
    c->is_embedder_ready = is_ready;
    pthread_mutex_unlock(&c->lock);
    if (is_news)
        wake(c);
}

/* A restarted embedder counts from nothing. */
static double grown(int64_t *seen, int64_t now)
{
    int64_t by = now >= *seen ? now - *seen : now;
    *seen = now;
    return (double)by;
}

static void count_embedder(struct chores *c, const cJSON *info)
{
    const char *model = json_get_text(info, "default", "");
    double tokens = grown(&c->seen.tokens, json_get_int(info, "tokens", 0));
    double texts = grown(&c->seen.texts, json_get_int(info, "texts", 0));
    double batches = grown(&c->seen.batches, json_get_int(info, "batches", 0));
    double busy = json_get_real(info, "busy_seconds", 0);
    double seconds = busy >= c->seen.busy_seconds ? busy - c->seen.busy_seconds : busy;
    c->seen.busy_seconds = busy;
    if (tokens > 0)
        metrics_add(METRIC_EMBED_TOKENS, model, NULL, tokens);
    if (texts > 0)
        metrics_add(METRIC_EMBED_TEXTS, model, NULL, texts);
    /* Only their sum is known: each of a second's batches is counted with the mean of them. */
    for (int i = 0; i < (int)batches && i < 1000; i++)
        metrics_observe(METRIC_EMBED_SECONDS, model, NULL, seconds / batches);
    if (batches > 0)
        metrics_observe(METRIC_EMBED_BATCH_FILL, model, NULL,
                        tokens / (batches * (double)c->settings->embedding_batch_tokens));
}

static void describe(struct chores *c, const cJSON *info)
{
    char *models[17] = {NULL};
    size_t count = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, cJSON_GetObjectItemCaseSensitive(info, "models"))
    {
        if (cJSON_IsString(m) && count + 1 < array_len(models))
            models[count++] = m->valuestring;
    }
    lease_describe(c->lease, models, json_get_text(info, "device", NULL));
}

static void ask_embedder(struct scope *sc, struct chores *c)
{
    const char *json = NULL;
    scoped(cJSON) *info = NULL;
    enum status s = embed_client_info(sc, c->embedder, INFO_TIMEOUT_MS, &json);
    if (s == STATUS_OK)
        s = json_parse(sc, json, strlen(json), &info);
    if (s == STATUS_OK) {
        describe(c, info);
        count_embedder(c, info);
    }
    set_embedder(c, s == STATUS_OK);
}

/* ---- the others ---- */

static void sweep(struct scope *sc, struct chores *c)
{
    /* An outage of PostgreSQL steals nothing: after one, others get a whole lease to be heard. */
    if (lease_unbroken_ms(c->lease) < c->settings->worker_lease_seconds * 1000)
        return;
    const struct settle_stores stores = {.db = c->sweeper.db, .queue = c->queue, .events = c->events};
    int count = 0;
    int64_t since_ms = lease_since_outage_ms(c->lease);
    if (settle_sweep(sc, &stores, since_ms < 0 ? -1 : (double)since_ms / 1000, c->settings->worker_lease_seconds,
                     &count) != STATUS_OK)
        log_debug("sweep_failed", log_text("problem", sc->problem_text));
    if (count > 0)
        chores_remove_leftovers(c);
}

static void reconcile(struct scope *sc, struct chores *c)
{
    if (lease_problem(c->lease))
        return;
    double lease = (double)c->settings->reconcile_seconds * 3;
    if (operation_store_reconcile(sc, c->sweeper.db, c->queue, c->events, &c->reconciler, lease) != STATUS_OK)
        log_debug("reconcile_failed", log_text("problem", sc->problem_text));
}

static void look_at_roots(struct scope *sc, struct chores *c)
{
    bool has_all = true;
    for (char **root = settings_list(&sc->arena, c->settings->source_roots, ':', NULL); *root; root++) {
        DIR *dir = opendir(*root);
        if (!dir) {
            has_all = false;
            log_warning("source_root_away", log_text("root", *root), log_text("reason", strerror(errno)));
        } else {
            closedir(dir);
        }
    }
    pthread_mutex_lock(&c->lock);
    c->has_roots = has_all;
    pthread_mutex_unlock(&c->lock);
}

/* The same thread looks after the embedder and the roots: what takes long goes on in the next round. */
static bool is_time_up(void *context)
{
    const int64_t *until_ms = context;
    return clock_monotonic_ms() > *until_ms;
}

static void remove_leftovers(struct scope *sc, struct chores *c)
{
    if (lease_problem(c->lease))
        return;
    int64_t until_ms = clock_monotonic_ms() + LEFTOVERS_MOST_MS;
    if (document_store_remove_leftovers(sc, c->keeper.db, 0, NULL) != STATUS_OK)
        log_debug("leftovers_not_removed", log_text("problem", sc->problem_text));
    scope_forgive(sc);
    if (staging_store_remove_leftovers(sc, c->keeper.db, is_time_up, &until_ms) != STATUS_OK)
        log_debug("staging_not_removed", log_text("problem", sc->problem_text));
    scope_forgive(sc);
    if (db_run(sc, c->keeper.db, SQL_IN_HAND_CLEAN, NULL) != STATUS_OK)
        log_debug("in_hand_not_cleaned", log_text("problem", sc->problem_text));
    scope_forgive(sc);
    if (db_run(sc, c->keeper.db, SQL_PROJECTION_CLEAN, NULL) != STATUS_OK)
        log_debug("projections_not_cleaned", log_text("problem", sc->problem_text));
}

/* ---- the threads ---- */

/* The worker's id is new after a lost lease. */
static void name_session(struct crew *crew)
{
    char name[64];
    lease_session_name(crew->chores->lease, crew->role, name);
    if (strcmp(name, crew->session_name) == 0)
        return;
    memcpy(crew->session_name, name, sizeof name);
    db_disconnect(crew->db);
    db_rename(crew->db, name);
}

/* When the next one is due. */
static int64_t do_what_is_due(struct crew *crew)
{
    int64_t next = INT64_MAX;
    name_session(crew);
    for (struct chore *chore = crew->list; chore < crew->list + crew->count; chore++) {
        if (clock_monotonic_ms() >= chore->due_ms) {
            struct scope sc;
            scope_init(&sc, NULL);
            chore->run(&sc, crew->chores);
            scope_done(&sc);
            chore->due_ms = clock_monotonic_ms() + chore->every_ms;
        }
        /* What is being waited for is looked at more often. */
        if (chore->run == ask_embedder && !chores_embedder_is_ready(crew->chores))
            chore->due_ms = clock_monotonic_ms() + EMBEDDER_START_MS;
        next = chore->due_ms < next ? chore->due_ms : next;
    }
    return next;
}

static struct timespec time_of(int64_t monotonic_ms)
{
    return (struct timespec){.tv_sec = monotonic_ms / 1000, .tv_nsec = monotonic_ms % 1000 * 1000000};
}

static bool pause_until(struct crew *crew, int64_t due_ms)
{
    struct chores *c = crew->chores;
    const struct timespec until = time_of(due_ms);
    pthread_mutex_lock(&c->lock);
    bool is_keeper = crew == &c->keeper;
    if (!c->has_to_stop && !(is_keeper && c->has_leftovers))
        pthread_cond_timedwait(&c->changed, &c->lock, &until);
    bool has_leftovers = is_keeper && c->has_leftovers, stop = c->has_to_stop;
    if (is_keeper)
        c->has_leftovers = false;
    pthread_mutex_unlock(&c->lock);
    for (struct chore *chore = crew->list; has_leftovers && chore < crew->list + crew->count; chore++) {
        int64_t soon = clock_monotonic_ms() + LEFTOVERS_SOON_MS;
        if (chore->run == remove_leftovers && chore->due_ms > soon)
            chore->due_ms = soon;
    }
    return !stop;
}

static void *run(void *context)
{
    struct crew *crew = context;
    while (pause_until(crew, do_what_is_due(crew))) {
    }
    return NULL;
}

/* A statement that waits for a lock does not keep the worker's end waiting. */
static bool has_to_stop(void *context)
{
    struct chores *c = context;
    pthread_mutex_lock(&c->lock);
    bool stop = c->has_to_stop;
    pthread_mutex_unlock(&c->lock);
    return stop;
}

static void start_crew(struct chores *c, struct crew *crew, const char *role)
{
    crew->chores = c;
    crew->role = role;
    crew->db = db_new(&(struct db_options){.url = c->settings->database_url, .statement_timeout_ms = STATEMENT_MS});
    db_on_wait(crew->db, has_to_stop, c);
    if (pthread_create(&crew->thread, NULL, run, crew) != 0)
        abort(); /* no thread at start: nothing can work */
}

static void add_chore(struct crew *crew, void (*run_chore)(struct scope *sc, struct chores *c), int64_t every_ms,
                      int64_t first_ms)
{
    crew->list[crew->count++] = (struct chore){
        .run = run_chore, .every_ms = every_ms, .due_ms = clock_monotonic_ms() + first_ms};
}

/* ---- from outside ---- */

static struct redis *connect_redis(const struct settings *s, int64_t database)
{
    return redis_new(
        &(struct redis_options){.url = s->redis_url, .database = (int)database, .prefix = s->redis_prefix});
}

struct chores *chores_start(const struct settings *settings, struct lease *lease, const char *embedder_socket,
                            int wake_fd)
{
    struct chores *c = must_calloc(1, sizeof *c);
    c->settings = settings;
    c->lease = lease;
    c->wake_fd = wake_fd;
    c->queue = connect_redis(settings, settings->redis_queue_db);
    c->events = connect_redis(settings, settings->redis_stream_db);
    c->embedder = embed_client_new(embedder_socket);
    char id[64];
    lease_worker_id(lease, id);
    snprintf(c->reconciler.holder, sizeof c->reconciler.holder, "%s", id);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int64_t short_lease_ms = settings->worker_lease_seconds * 250;
    add_chore(&c->sweeper, sweep, short_lease_ms < SWEEP_MS ? short_lease_ms : SWEEP_MS, 0);
    add_chore(&c->sweeper, reconcile, settings->reconcile_seconds * 1000, 0);
    add_chore(&c->keeper, ask_embedder, EMBEDDER_MS, 0);
    add_chore(&c->keeper, look_at_roots, ROOTS_MS, 0);
    add_chore(&c->keeper, remove_leftovers, LEFTOVERS_MS, LEFTOVERS_SOON_MS);
    start_crew(c, &c->sweeper, "sweeper");
    start_crew(c, &c->keeper, "keeper");
    return c;
}

void chores_stop(struct chores *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->has_to_stop = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->sweeper.thread, NULL);
    pthread_join(c->keeper.thread, NULL);
    operation_reconciler_done(&c->reconciler);
    embed_client_free(c->embedder);
    db_free(c->sweeper.db);
    db_free(c->keeper.db);
    redis_free(c->queue);
    redis_free(c->events);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

bool chores_embedder_is_ready(struct chores *c)
{
    pthread_mutex_lock(&c->lock);
    bool is_ready = c->is_embedder_ready;
    pthread_mutex_unlock(&c->lock);
    return is_ready;
}

void chores_embedder_died(struct chores *c)
{
    set_embedder(c, false);
}

void chores_remove_leftovers(struct chores *c)
{
    pthread_mutex_lock(&c->lock);
    c->has_leftovers = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

const char *chores_problem(struct chores *c)
{
    pthread_mutex_lock(&c->lock);
    const char *problem = !c->is_embedder_ready ? NO_EMBEDDER : !c->has_roots ? NO_ROOT : NULL;
    pthread_mutex_unlock(&c->lock);
    return problem;
}
