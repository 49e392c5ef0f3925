#include "worker/chores.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/store/document_store.h"
#include "common/store/operation_store.h"
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
    LEFTOVERS_SOON_MS = 1000,
    STATEMENT_MS = 30000,
};

static const char NO_ROOT[] = "a directory of OPSTREAM_SOURCE_ROOTS cannot be seen";
static const char NO_EMBEDDER[] = "the embedder is not ready";

struct chores {
    const struct settings *settings;
    struct lease *lease;
    int wake_fd;
    struct settle_stores stores; /* the thread's own */
    struct embed_client *embedder;
    struct operation_reconciler reconciler;
    struct {
        int64_t sweep, embedder, reconcile, roots, leftovers;
    } due_ms;
    struct {
        int64_t tokens, texts, batches;
        double busy_seconds;
    } seen; /* totals of the embedder that were counted already */
    pthread_t thread;
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
    int count = 0;
    int64_t since_ms = lease_since_outage_ms(c->lease);
    if (settle_sweep(sc, &c->stores, since_ms < 0 ? -1 : (double)since_ms / 1000, c->settings->worker_lease_seconds,
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
    if (operation_store_reconcile(sc, c->stores.db, c->stores.queue, c->stores.events, &c->reconciler, lease) !=
        STATUS_OK)
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

static void remove_leftovers(struct scope *sc, struct chores *c)
{
    if (lease_problem(c->lease))
        return;
    if (document_store_remove_leftovers(sc, c->stores.db, 0, NULL) != STATUS_OK)
        log_debug("leftovers_not_removed", log_text("problem", sc->problem_text));
}

static int64_t do_one(struct chores *c, void (*chore)(struct scope *sc, struct chores *c), int64_t due_ms,
                      int64_t every_ms)
{
    int64_t now = clock_monotonic_ms();
    if (now < due_ms)
        return due_ms;
    struct scope sc;
    scope_init(&sc, NULL);
    chore(&sc, c);
    scope_done(&sc);
    return clock_monotonic_ms() + every_ms;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t do_what_is_due(struct chores *c)
{
    int64_t short_lease_ms = c->settings->worker_lease_seconds * 250;
    int64_t sweep_ms = short_lease_ms < SWEEP_MS ? short_lease_ms : SWEEP_MS;
    c->due_ms.embedder = do_one(c, ask_embedder, c->due_ms.embedder,
                                chores_embedder_is_ready(c) ? EMBEDDER_MS : EMBEDDER_START_MS);
    c->due_ms.roots = do_one(c, look_at_roots, c->due_ms.roots, ROOTS_MS);
    c->due_ms.sweep = do_one(c, sweep, c->due_ms.sweep, sweep_ms);
    c->due_ms.reconcile = do_one(c, reconcile, c->due_ms.reconcile, c->settings->reconcile_seconds * 1000);
    c->due_ms.leftovers = do_one(c, remove_leftovers, c->due_ms.leftovers, LEFTOVERS_MS);
    if (!chores_embedder_is_ready(c))
        c->due_ms.embedder = earlier(c->due_ms.embedder, clock_monotonic_ms() + EMBEDDER_START_MS);
    int64_t next = earlier(earlier(c->due_ms.embedder, c->due_ms.roots), earlier(c->due_ms.sweep, c->due_ms.reconcile));
    return earlier(next, c->due_ms.leftovers);
}

static bool pause_until(struct chores *c, int64_t due_ms)
{
    int64_t ms = due_ms - clock_monotonic_ms();
    ms = ms < 1 ? 1 : ms;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&c->lock);
    if (!c->has_to_stop && !c->has_leftovers)
        pthread_cond_timedwait(&c->changed, &c->lock, &until);
    if (c->has_leftovers)
        c->due_ms.leftovers = earlier(c->due_ms.leftovers, clock_monotonic_ms() + LEFTOVERS_SOON_MS);
    c->has_leftovers = false;
    bool stop = c->has_to_stop;
    pthread_mutex_unlock(&c->lock);
    return !stop;
}

static void *run(void *context)
{
    struct chores *c = context;
    while (pause_until(c, do_what_is_due(c))) {
    }
    return NULL;
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
    c->stores.db = db_new(&(struct db_options){.url = settings->database_url,
                                               .application_name = "opstream-worker chores",
                                               .statement_timeout_ms = STATEMENT_MS});
    c->stores.queue = connect_redis(settings, settings->redis_queue_db);
    c->stores.events = connect_redis(settings, settings->redis_stream_db);
    c->embedder = embed_client_new(embedder_socket);
    c->due_ms.leftovers = clock_monotonic_ms() + LEFTOVERS_SOON_MS;
    char id[64];
    lease_worker_id(lease, id);
    snprintf(c->reconciler.holder, sizeof c->reconciler.holder, "%s", id);
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&c->thread, NULL, run, c) != 0)
        abort(); /* no thread at start: nothing can work */
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
    pthread_join(c->thread, NULL);
    operation_reconciler_done(&c->reconciler);
    embed_client_free(c->embedder);
    db_free(c->stores.db);
    redis_free(c->stores.queue);
    redis_free(c->stores.events);
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
