#include "worker/lease.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/db.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/version.h"
#include "sql/migrate.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { RANDOM_BYTES = 6, RENEW_MS = 1000, RETRY_MS = 300, LATE_MS = 2500, COMPLAIN_MS = 10000 };

static const char NO_DATABASE[] = "PostgreSQL cannot be reached";
static const char OLD_SCHEMA[] = "the database's schema is older than this program: run opstream-api --migrate";
static const char NOT_REGISTERED[] = "the worker is not registered yet";
static const char LOST[] = "the worker's lease was lost; it starts over";

struct lease {
    const struct settings *settings;
    int wake_fd;
    struct db *db; /* the thread's own */
    struct text url, queues;
    int slots;
    pthread_t thread;
    pthread_mutex_t lock;   /* guards what follows */
    pthread_cond_t changed; /* something to do now: drain, describe, start over, stop */
    pthread_cond_t renewed;
    char id[64];
    struct text models, devices;
    bool is_registered, is_stale /* the row must be written again */, is_lost, is_draining, is_drained,
        is_asked_to_drain, has_to_stop;
    int64_t renewed_ms; /* when the last renewal was sent, on our clock: the row's end is no earlier than this + the
                           lease */
    int64_t unbroken_since_ms;
    bool is_outage;
    int64_t outage_ended_ms; /* 0 = none was seen */
    int server_pid;
    const char *problem;
    int64_t complained_ms;
};

static void make_id(char out[64])
{
    char host[48] = "worker";
    unsigned char random[RANDOM_BYTES] = {0};
    gethostname(host, sizeof host - 1);
    ssize_t n = getrandom(random, sizeof random, 0);
    (void)n;
    snprintf(out, 64, "%.40s-%02x%02x%02x%02x%02x%02x", host, random[0], random[1], random[2], random[3], random[4],
             random[5]);
}

static void put_array(struct text *out, char **items)
{
    text_clear(out);
    for (char **i = items; i && *i; i++)
        db_array_put(out, *i);
    db_array_end(out);
}

static void wake(const struct lease *l)
{
    ssize_t n = write(l->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)n;
}

/* A new backend behind our connection means that it broke, however quickly it came back. */
static void note_connection(struct scope *sc, struct lease *l, int64_t started_ms)
{
    PGconn *conn;
    int pid = db_connection(sc, l->db, &conn) == STATUS_OK ? PQbackendPID(conn) : 0;
    int64_t now = clock_monotonic_ms();
    bool is_late = l->renewed_ms && started_ms - l->renewed_ms > LATE_MS;
    if (pid != l->server_pid || is_late || now - started_ms > LATE_MS)
        l->unbroken_since_ms = now;
    if (l->is_outage || (l->server_pid && pid != l->server_pid))
        l->outage_ended_ms = now;
    l->is_outage = false;
    l->server_pid = pid;
}

static void complain(struct lease *l, const char *problem, const char *details)
{
    int64_t now = clock_monotonic_ms();
    if (l->problem == problem && now - l->complained_ms < COMPLAIN_MS)
        return;
    l->complained_ms = now;
    log_warning("worker_not_ready", log_text("reason", problem), log_text("problem", details));
}

static void set_problem(struct lease *l, const char *problem, const char *details)
{
    if (problem)
        complain(l, problem, details);
    l->problem = problem;
    if (problem == NO_DATABASE) {
        l->unbroken_since_ms = INT64_MAX;
        l->is_outage = true;
    }
}

static enum status register_row(struct scope *sc, struct lease *l)
{
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    pthread_mutex_lock(&l->lock);
    const char *id = arena_strdup(&sc->arena, l->id);
    const char *models = arena_strdup(&sc->arena, text_str(&l->models));
    const char *devices = arena_strdup(&sc->arena, text_str(&l->devices));
    l->is_stale = false;
    pthread_mutex_unlock(&l->lock);
    return db_run(sc, l->db, SQL_WORKER_REGISTER, NULL, id, host, db_number(sc, getpid()),
                  l->url.len ? l->url.data : NULL, models, text_str(&l->queues), db_number(sc, l->slots), devices,
                  OPSTREAM_VERSION, db_number(sc, l->settings->worker_lease_seconds));
}

static enum status first_registration(struct scope *sc, struct lease *l, const char **out_problem)
{
    *out_problem = NO_DATABASE;
    enum status s = db_run(sc, l->db, "SELECT 1", NULL);
    if (s != STATUS_OK)
        return s;
    *out_problem = OLD_SCHEMA;
    s = migrate_check(sc, l->db);
    if (s != STATUS_OK)
        return s;
    *out_problem = NOT_REGISTERED;
    return register_row(sc, l);
}

/* Model: renew; renew: no row. */
static enum status renew(struct scope *sc, struct lease *l, bool is_draining, bool *out_found, bool *out_is_asked)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, l->db, SQL_WORKER_RENEW, &rows, l->id, db_number(sc, l->settings->worker_lease_seconds),
                           is_draining ? "true" : "false");
    *out_found = s == STATUS_OK && PQntuples(rows) == 1;
    *out_is_asked = *out_found && !is_draining && db_bool(rows, 0, "draining");
    return s;
}

static void after_success(struct scope *sc, struct lease *l, int64_t started_ms, bool is_draining, bool is_asked)
{
    bool was_registered = l->is_registered;
    note_connection(sc, l, started_ms);
    l->renewed_ms = started_ms;
    l->is_registered = true;
    l->is_drained = is_draining;
    bool is_news = l->problem || !was_registered || (is_asked && !l->is_asked_to_drain);
    l->is_asked_to_drain |= is_asked;
    set_problem(l, NULL, NULL);
    pthread_cond_broadcast(&l->renewed);
    if (!was_registered)
        log_info("worker_registered", log_text("worker", l->id), log_text("url", l->url.data),
                 log_int("slots", l->slots));
    if (is_news)
        wake(l);
}

static void after_loss(struct lease *l)
{
    l->is_lost = true;
    l->is_registered = false;
    set_problem(l, LOST, NULL);
    metrics_add(METRIC_LEASES_LOST, NULL, NULL, 1);
    log_error("lease_lost", log_text("worker", l->id));
    wake(l);
}

/* One renewal or registration; says whether to come back soon. */
static bool one_round(struct lease *l)
{
    struct scope sc;
    scope_init(&sc, NULL);
    pthread_mutex_lock(&l->lock);
    bool is_registered = l->is_registered, is_draining = l->is_draining, is_stale = l->is_stale, is_lost = l->is_lost;
    pthread_mutex_unlock(&l->lock);
    int64_t started_ms = clock_monotonic_ms();
    const char *problem = NO_DATABASE;
    bool is_found = true, is_asked = false;
    enum status s = STATUS_OK;
    if (is_lost)
        s = STATUS_LOST;
    else if (!is_registered)
        s = FAULT(BEFORE_REGISTRATION, l->id) ? STATUS_UNAVAILABLE : first_registration(&sc, l, &problem);
    else
        s = FAULT(BEFORE_RENEWAL, l->id) ? STATUS_UNAVAILABLE : renew(&sc, l, is_draining, &is_found, &is_asked);
    if (s == STATUS_OK && is_registered && is_found && is_stale)
        s = register_row(&sc, l); /* only after a renewal that found the row: a swept one must not come back to life */
    (void)FAULT(AFTER_RENEWAL, l->id);
    pthread_mutex_lock(&l->lock);
    if (s == STATUS_OK && !is_found)
        after_loss(l);
    else if (s == STATUS_OK)
        after_success(&sc, l, started_ms, is_draining && is_registered, is_asked);
    else if (!is_lost)
        set_problem(l, problem, sc.problem_text);
    if (s != STATUS_OK && is_stale)
        l->is_stale = true; /* to be written when the database is back */
    pthread_mutex_unlock(&l->lock);
    scope_done(&sc);
    return s != STATUS_OK;
}

static void pause_for(struct lease *l, int64_t ms, bool is_hasty)
{
    const struct timespec until = clock_in_ms(ms);
    pthread_mutex_lock(&l->lock);
    bool has_work = !is_hasty && l->is_registered && (l->is_stale || (l->is_draining && !l->is_drained));
    int rc = 0;
    while (!l->has_to_stop && !has_work && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&l->changed, &l->lock, &until);
        has_work = rc == 0;
    }
    pthread_mutex_unlock(&l->lock);
}

static bool has_to_stop(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    bool stop = l->has_to_stop;
    pthread_mutex_unlock(&l->lock);
    return stop;
}

static void *run(void *context)
{
    struct lease *l = context;
    /* With short leases the second would be too long. */
    int64_t lease_ms = l->settings->worker_lease_seconds * 1000;
    int64_t every_ms = lease_ms / 3 < RENEW_MS ? lease_ms / 3 : RENEW_MS;
    while (!has_to_stop(l)) {
        bool is_hasty = one_round(l);
        pause_for(l, is_hasty && every_ms > RETRY_MS ? RETRY_MS : every_ms, is_hasty);
    }
    return NULL;
}

struct lease *lease_start(const struct settings *settings, const struct lease_facts *facts, int wake_fd)
{
    struct lease *l = must_calloc(1, sizeof *l);
    l->settings = settings;
    l->wake_fd = wake_fd;
    l->slots = facts->slots;
    l->problem = NOT_REGISTERED;
    l->unbroken_since_ms = INT64_MAX;
    if (facts->url)
        text_puts(&l->url, facts->url);
    put_array(&l->queues, facts->queues);
    put_array(&l->models, NULL);
    put_array(&l->devices, NULL);
    make_id(l->id);
    l->db = db_new(&(struct db_options){.url = settings->database_url,
                                        .application_name = "opstream-worker lease",
                                        .statement_timeout_ms = (int)settings->worker_lease_seconds * 1000});
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&l->changed, &attributes);
    pthread_cond_init(&l->renewed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&l->thread, NULL, run, l) != 0)
        abort(); /* no thread at start: nothing can work */
    return l;
}

static void remove_row_of(struct lease *l)
{
    struct scope sc;
    scope_init(&sc, NULL);
    if (l->is_registered && db_run(&sc, l->db, SQL_WORKER_REMOVE, NULL, l->id) != STATUS_OK)
        log_debug("worker_row_not_removed", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

void lease_stop(struct lease *l, bool remove_row)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->has_to_stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    if (remove_row)
        remove_row_of(l);
    db_free(l->db);
    text_free(&l->url);
    text_free(&l->queues);
    text_free(&l->models);
    text_free(&l->devices);
    pthread_cond_destroy(&l->changed);
    pthread_cond_destroy(&l->renewed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void lease_worker_id(struct lease *l, char out[64])
{
    pthread_mutex_lock(&l->lock);
    memcpy(out, l->id, sizeof l->id);
    pthread_mutex_unlock(&l->lock);
}

/* The id's random end is what sets workers apart; names have at most 63 bytes. */
static void name_session(const char *id, const char *role, char out[64])
{
    size_t len = strlen(id);
    snprintf(out, 64, "opstream-worker %.20s %s", role, id + (len > 2 * RANDOM_BYTES ? len - 2 * RANDOM_BYTES : 0));
}

void lease_session_name(struct lease *l, const char *role, char out[64])
{
    pthread_mutex_lock(&l->lock);
    name_session(l->id, role, out);
    pthread_mutex_unlock(&l->lock);
}

bool lease_is_held(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    bool is_held = l->is_registered && !l->is_lost && !l->is_draining &&
                   clock_monotonic_ms() - l->renewed_ms < l->settings->worker_lease_seconds * 1000;
    pthread_mutex_unlock(&l->lock);
    return is_held;
}

bool lease_is_lost(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    bool is_lost = l->is_lost;
    pthread_mutex_unlock(&l->lock);
    return is_lost;
}

bool lease_is_asked_to_drain(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    bool is_asked = l->is_asked_to_drain;
    pthread_mutex_unlock(&l->lock);
    return is_asked;
}

/* Model: start over. */
void lease_start_over(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    make_id(l->id);
    l->is_lost = false;
    l->renewed_ms = 0;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

void lease_drain(struct lease *l)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    pthread_mutex_lock(&l->lock);
    l->is_draining = true;
    pthread_cond_broadcast(&l->changed);
    int rc = 0;
    while (l->is_registered && !l->is_drained && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&l->renewed, &l->lock, &until);
    pthread_mutex_unlock(&l->lock);
}

void lease_describe(struct lease *l, char **models, const char *device)
{
    char *devices[] = {(char *)device, NULL};
    scoped_text before = {0};
    pthread_mutex_lock(&l->lock);
    text_puts(&before, text_str(&l->models));
    text_puts(&before, text_str(&l->devices));
    put_array(&l->models, models);
    put_array(&l->devices, device ? devices : NULL);
    size_t len = l->models.len;
    bool is_same = before.len == len + l->devices.len && strncmp(before.data, l->models.data, len) == 0 &&
                   strcmp(before.data + len, l->devices.data) == 0;
    if (!is_same) {
        l->is_stale = true;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
}

int64_t lease_unbroken_ms(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    int64_t now = clock_monotonic_ms();
    bool is_fresh = l->is_registered && now - l->renewed_ms < LATE_MS;
    int64_t ms = is_fresh && l->unbroken_since_ms != INT64_MAX ? now - l->unbroken_since_ms : 0;
    pthread_mutex_unlock(&l->lock);
    return ms;
}

bool lease_is_cut_off(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    bool is_late = l->renewed_ms && clock_monotonic_ms() - l->renewed_ms > l->settings->worker_lease_seconds * 1000;
    bool is_cut_off = l->problem == NO_DATABASE || is_late;
    pthread_mutex_unlock(&l->lock);
    return is_cut_off;
}

int64_t lease_since_outage_ms(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    int64_t ms = l->outage_ended_ms ? clock_monotonic_ms() - l->outage_ended_ms : -1;
    pthread_mutex_unlock(&l->lock);
    return ms;
}

const char *lease_problem(struct lease *l)
{
    pthread_mutex_lock(&l->lock);
    const char *problem = l->problem;
    if (!problem && clock_monotonic_ms() - l->renewed_ms > l->settings->worker_lease_seconds * 1000)
        problem = NO_DATABASE;
    pthread_mutex_unlock(&l->lock);
    return problem;
}
