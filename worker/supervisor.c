#include "worker/supervisor.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "worker/supervisor_state.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    TURN_MS = 1000,     /* longest wait: deadlines have no finer grain than is needed */
    BATCH_LOOK_MS = 50, /* whether one of a batch takes long */
    STOP_GRACE_DRAIN_MS = 3000,
    STATEMENT_MS = 5000,
    HOST_NAME_BYTES = 256,
};

/* ---- the end ---- */

void begin_drain(struct supervisor *w)
{
    if (w->is_draining)
        return;
    w->is_draining = true;
    w->drain_until_ms = clock_monotonic_ms() + w->settings->drain_seconds * 1000;
    log_info("worker_draining", log_text("worker", w->worker_id), log_int("tasks", (int64_t)busy_count(w)));
    scheduler_hand_over(w->scheduler);
    (void)FAULT(DRAIN_BEGUN, w->worker_id);
    lease_drain(w->lease);
    (void)FAULT(DRAIN_TOLD, w->worker_id);
    for (size_t l = 0; l < array_len(w->lanes); l++) {
        read_lane(w, &w->lanes[l]);
        put_back(w, &w->lanes[l]);
        redis_drop(w->lanes[l].redis);
        w->lanes[l].is_waiting = false;
    }
    for (size_t i = 0; i < w->slot_count; i++)
        slot_retire(&w->slots[i]);
}

static void on_signal(struct supervisor *w)
{
    struct signalfd_siginfo info;
    while (read(w->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            continue; /* looked at in every turn */
        if (w->is_draining && !w->is_hurried) {
            w->is_hurried = true;
            stop_all(w, STOP_DRAIN, 0);
        }
        begin_drain(w);
    }
}

static bool is_over(const struct supervisor *w)
{
    if (!w->is_draining)
        return false;
    for (size_t i = 0; i < w->slot_count; i++) {
        if (w->slots[i].state != SLOT_EMPTY)
            return false;
    }
    int64_t patience_ms = w->is_hurried ? 0 : STOP_GRACE_DRAIN_MS;
    return w->owed_count == 0 || clock_monotonic_ms() > w->drain_until_ms + patience_ms;
}

static void take_id(struct supervisor *w, struct lease *lease)
{
    char name[64];
    lease_worker_id(lease, w->worker_id);
    lease_session_name(lease, "supervisor", name);
    db_disconnect(w->db); /* the next connection has the name */
    db_rename(w->db, name);
}

/* The row was swept: whatever runs here runs somewhere else by now. */
static void start_over(struct supervisor *w)
{
    if (!lease_is_lost(w->lease))
        return;
    stop_all(w, STOP_ABANDON, 0);
    for (size_t i = 0; i < w->slot_count; i++) {
        while (w->slots[i].pid > 0 && !slot_has_died(&w->slots[i]))
            poll(NULL, 0, 5);
    }
    reap(w);
    w->owed_count = 0;
    hide(w);
    (void)FAULT(BEFORE_START_OVER, w->worker_id);
    lease_start_over(w->lease);
    take_id(w, w->lease);
    if (w->is_subscribed)
        redis_drop(w->control);
    w->is_subscribed = false;
    log_info("worker_started_over", log_text("worker", w->worker_id));
}

/* ---- the loop ---- */

static void wait_for_something(struct supervisor *w)
{
    struct pollfd fds[MOST_SLOTS + 8];
    size_t n = 0;
    fds[n++] = (struct pollfd){.fd = w->signal_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = w->wake_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = w->is_subscribed ? redis_fd(w->control) : -1, .events = POLLIN};
    for (size_t l = 0; l < array_len(w->lanes); l++)
        fds[n++] = (struct pollfd){.fd = w->lanes[l].is_waiting ? redis_fd(w->lanes[l].redis) : -1, .events = POLLIN};
    for (size_t i = 0; i < w->slot_count; i++)
        fds[n++] = (struct pollfd){.fd = w->slots[i].pid > 0 ? w->slots[i].fd : -1, .events = POLLIN};
    int64_t now = clock_monotonic_ms(), until = now + TURN_MS;
    const int64_t deadlines[] = {w->check_at_ms,        w->owed_count ? w->owed_at_ms : INT64_MAX,
                                 w->find_at_ms,         w->embedder.start_at_ms,
                                 w->lanes[0].try_at_ms, w->lanes[1].try_at_ms};
    for (size_t i = 0; i < array_len(deadlines); i++) {
        if (deadlines[i] > now && deadlines[i] < until)
            until = deadlines[i];
    }
    for (size_t i = 0; i < w->slot_count; i++) {
        const struct slot *s = &w->slots[i];
        int64_t at = s->kill_at_ms                               ? s->kill_at_ms
                     : s->state == SLOT_EMPTY && !w->is_draining ? s->start_at_ms
                                                                 : INT64_MAX;
        if (at < until)
            until = at;
        if (s->items && until > now + BATCH_LOOK_MS)
            until = now + BATCH_LOOK_MS;
        /* A dead child's socket is readable for ever: its death is waited for by SIGCHLD. */
        if (s->state == SLOT_RETIRING || s->is_killed)
            fds[5 + i].fd = -1;
    }
    poll(fds, n, until > now ? (int)(until - now) : 0);
    uint64_t count;
    ssize_t got = read(w->wake_fd, &count, sizeof count);
    (void)got;
}

static void one_turn(struct supervisor *w)
{
    on_signal(w);
    if (lease_is_asked_to_drain(w->lease))
        begin_drain(w);
    start_over(w);
    for (size_t i = 0; i < w->slot_count; i++)
        read_reports(w, &w->slots[i]);
    reap(w);
    for (size_t l = 0; l < array_len(w->lanes); l++)
        read_lane(w, &w->lanes[l]);
    read_control(w);
    int64_t now = clock_monotonic_ms();
    for (size_t i = 0; i < w->slot_count; i++)
        watch_slot(w, &w->slots[i], now);
    for (size_t l = 0; l < array_len(w->lanes) && !w->is_draining; l++)
        pump(w, &w->lanes[l]);
    if (w->owed_count && now >= w->owed_at_ms)
        pay(w);
    if (now >= w->check_at_ms && !is_database_away(w))
        check_rows(w);
    if (now >= w->orphans_at_ms && !lease_problem(w->lease))
        check_orphans(w);
    if (w->is_draining && now > w->drain_until_ms)
        stop_all(w, STOP_DRAIN, STOP_GRACE_DRAIN_MS);
    if (!w->is_draining)
        embedder_process_start(&w->embedder);
    find_due(w);
    keep_control(w);
    show(w);
}

/* ---- set-up ---- */

static const char *is_ready(void *context)
{
    struct supervisor *w = context;
    struct lease *lease = atomic_load(&w->lease);
    if (!lease)
        return "the worker is starting";
    const char *problem = atomic_load(&w->is_draining) ? "the worker is draining" : lease_problem(lease);
    return problem ? problem : chores_problem(w->chores);
}

static struct redis *connect_redis(const struct settings *s, int64_t database, int timeout_ms)
{
    return redis_new(&(struct redis_options){
        .url = s->redis_url, .database = (int)database, .prefix = s->redis_prefix, .timeout_ms = timeout_ms});
}

static void set_up_lanes(struct supervisor *w)
{
    const struct settings *s = w->settings;
    char **queues = settings_list(&w->life.arena, s->worker_queues, ',', NULL);
    for (; *queues && w->lanes[0].queue_count < MOST_QUEUES; queues++)
        w->lanes[0].queues[w->lanes[0].queue_count++] = *queues;
    w->lanes[1].is_fast_only = true;
    w->lanes[1].queues[0] = "fast";
    w->lanes[1].queue_count = 1;
    for (size_t l = 0; l < array_len(w->lanes); l++)
        w->lanes[l].redis = connect_redis(s, s->redis_queue_db, REDIS_TIMEOUT_MS);
    w->slot_count = (size_t)s->worker_concurrency + 1;
    for (size_t i = 0; i < w->slot_count; i++)
        w->slots[i] = (struct slot){.fd = -1, .is_fast_only = i + 1 == w->slot_count};
}

static void take_signals(struct supervisor *w)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    w->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static bool is_any_address(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 || strcmp(host, "*") == 0;
}

/* "Every address" is none by which an API could reach this worker: then it is the machine's name, which a resolver must
 * know. */
static const char *own_url(struct supervisor *w)
{
    const struct settings *s = w->settings;
    const char *host = s->worker_advertise_host && *s->worker_advertise_host ? s->worker_advertise_host
                                                                             : s->worker_host;
    if (is_any_address(host)) {
        char *name = arena_alloc(&w->life.arena, HOST_NAME_BYTES);
        if (gethostname(name, HOST_NAME_BYTES) != 0)
            snprintf(name, HOST_NAME_BYTES, "localhost");
        name[HOST_NAME_BYTES - 1] = '\0';
        log_warning("worker_address_guessed", log_text("host", name),
                    log_text("hint", "WORKER_HOST listens on every address; set WORKER_ADVERTISE_HOST to the one by "
                                     "which APIs reach this worker"));
        host = name;
    }
    bool is_v6 = strchr(host, ':') != NULL;
    return arena_printf(&w->life.arena, is_v6 ? "http://[%s]:%d" : "http://%s:%d", host, internal_http_port(w->http));
}

/* The internal HTTP asks for the lease and the chores, and the lease wants to tell where it listens. So both ports are
 * opened first and answer "not ready" until the rest stands. */
static enum status start_http(struct supervisor *w)
{
    enum status s = internal_http_start(&w->life, w->settings, w->embedder.socket, is_ready, w, &w->http);
    if (s != STATUS_OK || w->settings->worker_metrics_port < 0)
        return s;
    struct settings *other = arena_alloc(&w->life.arena, sizeof *other);
    *other = *w->settings;
    other->worker_port = w->settings->worker_metrics_port;
    s = internal_http_start(&w->life, other, w->embedder.socket, is_ready, w, &w->metrics_http);
    return s == STATUS_OK
               ? s
               : fail(&w->life, s, "cannot listen on WORKER_METRICS_PORT %lld", (long long)other->worker_port);
}

static enum status set_up(struct supervisor *w)
{
    const struct settings *s = w->settings;
    enum status status = embedder_process_init(&w->life, &w->embedder);
    if (status != STATUS_OK)
        return status;
    set_up_lanes(w);
    w->db = db_new(&(struct db_options){.url = s->database_url,
                                        .application_name = "opstream-worker supervisor",
                                        .statement_timeout_ms = STATEMENT_MS});
    w->stores = (struct settle_stores){.db = w->db,
                                       .queue = connect_redis(s, s->redis_queue_db, REDIS_TIMEOUT_MS),
                                       .events = connect_redis(s, s->redis_stream_db, REDIS_TIMEOUT_MS)};
    w->control = connect_redis(s, s->redis_stream_db, REDIS_TIMEOUT_MS);
    embedder_process_start(&w->embedder);
    status = start_http(w);
    if (status != STATUS_OK)
        return status;
    struct lease_facts facts = {.url = own_url(w),
                                .queues = settings_list(&w->life.arena, s->worker_queues, ',', NULL),
                                .slots = (int)w->slot_count};
    struct lease *lease = lease_start(s, &facts, w->wake_fd);
    take_id(w, lease);
    w->chores = chores_start(s, lease, w->embedder.socket, w->wake_fd);
    w->scheduler = scheduler_start(s, lease);
    atomic_store(&w->lease, lease); /* last: is_ready() asks both once this is set */
    return STATUS_OK;
}

static void tear_down(struct supervisor *w)
{
    bool is_clean = w->owed_count == 0;
    (void)FAULT(BEFORE_WORKER_ENDS, w->worker_id);
    internal_http_free(w->http);
    internal_http_free(w->metrics_http);
    scheduler_stop(w->scheduler);
    chores_stop(w->chores);
    hide(w);
    lease_stop(w->lease, is_clean);
    embedder_process_done(&w->embedder);
    redis_free(w->stores.queue);
    redis_free(w->stores.events);
    redis_free(w->control);
    for (size_t l = 0; l < array_len(w->lanes); l++)
        redis_free(w->lanes[l].redis);
    db_free(w->db);
    free(w->owed);
    close_scoped_fd(&w->signal_fd);
    close_scoped_fd(&w->wake_fd);
    scope_done(&w->life);
}

int supervisor_run(const struct settings *settings)
{
    struct supervisor *w = must_calloc(1, sizeof *w);
    w->settings = settings;
    scope_init(&w->life, NULL);
    take_signals(w);
    int exit_status = 0;
    if (set_up(w) != STATUS_OK) {
        log_error("worker_not_started", log_text("problem", w->life.problem_text));
        exit_status = 1;
        w->is_draining = true;
    } else {
        log_info("worker_started", log_text("worker", w->worker_id), log_int("port", internal_http_port(w->http)),
                 log_int("slots", (int64_t)w->slot_count), log_text("queues", settings->worker_queues));
    }
    while (exit_status == 0 && !is_over(w)) {
        one_turn(w);
        if (!is_over(w))
            wait_for_something(w);
    }
    log_info("worker_ended", log_text("worker", w->worker_id));
    if (w->lease && is_database_away(w)) {
        /* Threads may hang in what they asked it. What is still owed is swept when the lease has lapsed. */
        hide(w);
        embedder_process_done(&w->embedder);
        _exit(exit_status);
    }
    tear_down(w);
    free(w);
    return exit_status;
}
