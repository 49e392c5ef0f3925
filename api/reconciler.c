#include "api/reconciler.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/store/operation_store.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { STACK_BYTES = 256 << 10, DATABASE_TIMEOUT_MS = 5000, LEASE_ROUNDS = 3, KEYS_A_ROUND = 5000, FORGET_MS = 60000 };

struct reconciler {
    struct api *api;
    pthread_t thread;
    pthread_mutex_t lock; /* guards is_stopping */
    pthread_cond_t wake;
    bool is_stopping;
};

/* Returns false when it is time to stop. */
static bool pause_seconds(struct reconciler *r, int64_t seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until); /* a clock that is set back must not put the next round off */
    until.tv_sec += seconds;
    pthread_mutex_lock(&r->lock);
    int e = 0;
    while (!r->is_stopping && e == 0)
        e = pthread_cond_timedwait(&r->wake, &r->lock, &until);
    bool goes_on = !r->is_stopping;
    pthread_mutex_unlock(&r->lock);
    return goes_on;
}

struct connections {
    struct db *db;
    struct redis *queue, *events;
};

static void run_round(struct reconciler *r, const struct connections *c, struct operation_reconciler *memory)
{
    struct scope sc;
    scope_init(&sc, NULL);
    double lease = (double)r->api->settings->reconcile_seconds * LEASE_ROUNDS;
    enum status s = operation_store_reconcile(&sc, c->db, c->queue, c->events, memory, lease);
    if (s != STATUS_OK && s != STATUS_UNAVAILABLE)
        log_warning("reconcile_failed", log_text("status", status_name(s)), log_text("problem", sc.problem_text));
    else if (s != STATUS_OK)
        log_debug("reconcile_failed", log_text("status", status_name(s)), log_text("problem", sc.problem_text));
    db_rollback(c->db);
    scope_done(&sc);
}

/* A piece each round; true when there is more, for the next one. */
static bool forget_keys(struct reconciler *r, struct db *db)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(&sc, db, SQL_IDEMPOTENCY_FORGET, &rows,
                           db_number(&sc, r->api->settings->idempotency_key_hours), db_number(&sc, KEYS_A_ROUND));
    int64_t keys = s == STATUS_OK ? db_int(rows, 0, "keys", 0) : 0;
    if (keys > 0) {
        metrics_add(METRIC_KEYS_FORGOTTEN, NULL, NULL, (double)keys);
        log_info("idempotency_keys_forgotten", log_int("keys", keys));
    }
    if (s != STATUS_OK)
        log_debug("idempotency_keys_not_forgotten", log_text("problem", sc.problem_text));
    scope_done(&sc);
    return keys == KEYS_A_ROUND;
}

static void *reconcile(void *cls)
{
    struct reconciler *r = cls;
    const struct settings *s = r->api->settings;
    struct redis_options redis = {.url = s->redis_url, .prefix = s->redis_prefix, .database = (int)s->redis_queue_db};
    struct connections c = {.queue = redis_new(&redis)};
    struct operation_reconciler memory = {0};
    bool is_behind = true; /* with keys whose time is over */
    int64_t forgot_ms = 0;
    redis.database = (int)s->redis_stream_db;
    c.events = redis_new(&redis);
    c.db = db_new(&(struct db_options){.url = s->database_url,
                                       .application_name = "opstream-api reconciler",
                                       .statement_timeout_ms = DATABASE_TIMEOUT_MS});
    snprintf(memory.holder, sizeof memory.holder, "api %s", r->api->instance_id);
    while (pause_seconds(r, s->reconcile_seconds)) {
        if (!r->api->is_schema_ok)
            continue;
        run_round(r, &c, &memory);
        if (is_behind || clock_monotonic_ms() - forgot_ms > FORGET_MS) {
            is_behind = forget_keys(r, c.db);
            forgot_ms = clock_monotonic_ms();
        }
    }
    operation_reconciler_done(&memory);
    redis_free(c.queue);
    redis_free(c.events);
    db_free(c.db);
    return NULL;
}

enum status reconciler_start(struct scope *sc, struct api *api, struct reconciler **out)
{
    struct reconciler *r = must_calloc(1, sizeof *r);
    pthread_attr_t attributes;
    r->api = api;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int e = pthread_create(&r->thread, &attributes, reconcile, r);
    pthread_attr_destroy(&attributes);
    if (e != 0) {
        free(r);
        return fail(sc, STATUS_NO_SPACE, "cannot start a thread");
    }
    *out = r;
    return STATUS_OK;
}

void reconciler_free(struct reconciler *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->is_stopping = true;
    pthread_cond_broadcast(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
