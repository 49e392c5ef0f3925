#include "api/health.h"

#include "api/relay/relay.h"
#include "build/queries.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "sql/migrate.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    STACK_BYTES = 256 << 10,
    EVERY_MS = 1000,
    TIMEOUT_MS = 2000,
    QUEUES_EVERY = 5,
    STALE_MS = 15000,
    KNOWN_QUEUES = 64,
    QUEUE_NAME_BYTES = 64
};

struct health {
    struct api *api;
    pthread_t thread;
    bool is_started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    bool is_stopping;
    int64_t checked_ms; /* 0 = not yet */
    const char *database, *redis, *embedding;
    /* the thread's own */
    char queues[KNOWN_QUEUES]
               [QUEUE_NAME_BYTES]; /* whose depth was shown: it goes to 0 when their last operation has ended */
    int queue_count;
};

struct health *health_new(struct api *api)
{
    struct health *h = must_calloc(1, sizeof *h);
    h->api = api;
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&h->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return h;
}

/* Returns false when it is time to stop. */
static bool pause_until_next(struct health *h)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(EVERY_MS % 1000) * 1000000;
    until.tv_sec += EVERY_MS / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&h->lock);
    if (!h->is_stopping)
        pthread_cond_timedwait(&h->wake, &h->lock, &until);
    bool goes_on = !h->is_stopping;
    pthread_mutex_unlock(&h->lock);
    return goes_on;
}

static const char *check_database(struct scope *sc, struct health *h, struct db *db)
{
    enum status s = migrate_check(sc, db);
    bool was_ok = h->api->is_schema_ok;
    h->api->is_schema_ok = s == STATUS_OK;
    if (s == STATUS_OK)
        return NULL;
    if (was_ok)
        log_warning("database_unhealthy", log_text("problem", sc->problem_text));
    bool is_old = sc->problem_text && strstr(sc->problem_text, "--migrate");
    scope_forgive(sc);
    return is_old ? "its schema is older than this program: run opstream-api --migrate" : "PostgreSQL does not answer";
}

static const char *check_embedding(struct scope *sc, struct db *db)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_WORKERS_EMBEDDING, &rows);
    scope_forgive(sc);
    return s == STATUS_OK && db_int(rows, 0, "workers", 0) > 0 ? NULL : "no worker that embeds is running";
}

/* A write, because a server that is full or a replica answers everything else. */
static const char *check_redis(struct scope *sc, const struct health *h, struct redis *redis)
{
    enum status s = redis_run(sc, redis, NULL, "SET %s 1 EX 10",
                              redis_key(sc, redis, "health:%s", h->api->instance_id));
    scope_forgive(sc);
    if (s == STATUS_OK)
        return NULL;
    return redis_is_connected(redis) ? "Redis takes no writes" : "Redis does not answer";
}

static bool has_queue(const PGresult *rows, const char *queue)
{
    for (int i = 0; i < PQntuples(rows); i++) {
        if (strcmp(db_text(rows, i, "queue"), queue) == 0)
            return true;
    }
    return false;
}

static void remember_queue(struct health *h, const char *queue)
{
    for (int i = 0; i < h->queue_count; i++) {
        if (strcmp(h->queues[i], queue) == 0)
            return;
    }
    if (h->queue_count < KNOWN_QUEUES && strlen(queue) < QUEUE_NAME_BYTES)
        snprintf(h->queues[h->queue_count++], QUEUE_NAME_BYTES, "%s", queue);
}

static void count_queues(struct scope *sc, struct health *h, struct db *db)
{
    scoped(PGresult) *rows = NULL;
    if (db_run(sc, db, SQL_QUEUE_DEPTHS, &rows) != STATUS_OK) {
        scope_forgive(sc);
        return;
    }
    for (int i = 0; i < PQntuples(rows); i++) {
        const char *queue = db_text(rows, i, "queue");
        metrics_set(METRIC_QUEUE_DEPTH, queue, "pending", (double)db_int(rows, i, "pending", 0));
        metrics_set(METRIC_QUEUE_DEPTH, queue, "processing", (double)db_int(rows, i, "processing", 0));
        metrics_set(METRIC_QUEUE_AGE, queue, NULL, db_real(rows, i, "oldest_seconds", 0));
        remember_queue(h, queue);
    }
    for (int i = 0; i < h->queue_count; i++) {
        if (has_queue(rows, h->queues[i]))
            continue;
        metrics_set(METRIC_QUEUE_DEPTH, h->queues[i], "pending", 0);
        metrics_set(METRIC_QUEUE_DEPTH, h->queues[i], "processing", 0);
        metrics_set(METRIC_QUEUE_AGE, h->queues[i], NULL, 0);
    }
}

static void check_all(struct health *h, struct db *db, struct redis *redis, bool with_queues)
{
    struct scope sc;
    scope_init(&sc, NULL);
    const char *database = check_database(&sc, h, db);
    const char *embedding = database ? "PostgreSQL does not answer" : check_embedding(&sc, db);
    const char *of_redis = check_redis(&sc, h, redis);
    if (with_queues && !database)
        count_queues(&sc, h, db);
    scope_done(&sc);
    pthread_mutex_lock(&h->lock);
    h->checked_ms = clock_monotonic_ms();
    h->database = database;
    h->embedding = embedding;
    h->redis = of_redis;
    pthread_mutex_unlock(&h->lock);
}

static void *watch(void *cls)
{
    struct health *h = cls;
    const struct settings *s = h->api->settings;
    struct db *db = db_new(&(struct db_options){
        .url = s->database_url, .application_name = "opstream-api health", .statement_timeout_ms = TIMEOUT_MS});
    struct redis *redis = redis_new(&(struct redis_options){.url = s->redis_url,
                                                            .database = (int)s->redis_stream_db,
                                                            .prefix = s->redis_prefix,
                                                            .timeout_ms = TIMEOUT_MS / 2});
    for (int round = 0;; round = (round + 1) % QUEUES_EVERY) {
        check_all(h, db, redis, round == 0);
        if (!pause_until_next(h))
            break;
    }
    redis_free(redis);
    db_free(db);
    return NULL;
}

enum status health_start(struct scope *sc, struct health *h)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    h->is_started = pthread_create(&h->thread, &attributes, watch, h) == 0;
    pthread_attr_destroy(&attributes);
    return h->is_started ? STATUS_OK : fail(sc, STATUS_NO_SPACE, "cannot start a thread");
}

void health_free(struct health *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->is_stopping = true;
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->lock);
    if (h->is_started)
        pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

void health_look(struct health *h, struct health_view *out)
{
    pthread_mutex_lock(&h->lock);
    bool is_fresh = h->checked_ms && clock_monotonic_ms() - h->checked_ms < STALE_MS;
    *out = (struct health_view){
        .database = is_fresh ? h->database : "PostgreSQL was not heard of yet",
        .embedding = is_fresh ? h->embedding : "not known yet",
        .redis = is_fresh ? h->redis : "Redis was not heard of yet",
    };
    pthread_mutex_unlock(&h->lock);
    out->relay = h->api->relay ? relay_trouble(h->api->relay) : NULL;
    out->is_ready = !out->database && !h->api->is_draining;
    out->is_degraded = out->redis || out->relay;
}
