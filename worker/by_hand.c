#include "worker/by_hand.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/message.h"
#include "worker/claim.h"
#include "worker/embed/client.h"
#include "worker/embedder_process.h"
#include "worker/lease.h"
#include "worker/settle.h"
#include "worker/task_run.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

enum { LEASE_MS = 10000, EMBEDDER_MS = 30000, STEP_MS = 20, STATEMENT_MS = 10000 };

static volatile sig_atomic_t is_told; /* owner: the signal handler */

static void on_signal(int signal_number)
{
    (void)signal_number;
    is_told = 1;
}

struct by_hand {
    const struct settings *settings;
    struct lease *lease;
    struct embedder_process embedder;
    struct settle_stores stores;
    struct task_host host;
    char worker_id[64];
};

static enum status wait_for_lease(struct scope *sc, struct by_hand *h)
{
    for (int64_t until = clock_monotonic_ms() + LEASE_MS; clock_monotonic_ms() < until && !is_told;
         poll(NULL, 0, STEP_MS)) {
        if (lease_is_held(h->lease))
            return STATUS_OK;
    }
    const char *problem = lease_problem(h->lease);
    return fail(sc, STATUS_UNAVAILABLE, "%s", problem ? problem : "interrupted");
}

static enum status wait_for_embedder(struct scope *sc, struct by_hand *h)
{
    struct embed_client *client = embed_client_new(h->embedder.socket);
    enum status s = STATUS_UNAVAILABLE;
    for (int64_t until = clock_monotonic_ms() + EMBEDDER_MS;
         s != STATUS_OK && clock_monotonic_ms() < until && !is_told;) {
        struct scope own;
        const char *info;
        scope_init(&own, NULL);
        s = embedder_process_reap(&h->embedder) ? STATUS_INTERNAL
                                                : embed_client_info(&own, client, STEP_MS * 10, &info);
        scope_done(&own);
        if (s == STATUS_INTERNAL)
            break;
    }
    embed_client_free(client);
    return s == STATUS_OK ? s : fail(sc, STATUS_UNAVAILABLE, "the embedder does not start; the log says why");
}

static enum status settle(struct scope *sc, struct by_hand *h, const char *uuid, const char *task_id,
                          const struct task_end *end)
{
    struct hand_back give = {
        .delay_seconds = end->delay_seconds, .is_counted = end->is_counted, .class = (enum error_class)end->class};
    hand_back_figures(&give, end);
    snprintf(give.operation_id, sizeof give.operation_id, "%s", uuid);
    snprintf(give.task_id, sizeof give.task_id, "%s", task_id);
    snprintf(give.reason, sizeof give.reason, "%s",
             end->outcome == TASK_STOPPED ? "its worker was stopped" : end->reason);
    give.ended = (enum attempt_end)end->ended;
    if (end->outcome == TASK_STOPPED) {
        give.ended = ATTEMPT_DRAINED;
        give.class = ERROR_NONE;
        give.is_counted = false;
    }
    enum settled settled;
    return settle_hand_back(sc, &h->stores, &give, &settled);
}

static enum status run(struct scope *sc, struct by_hand *h, const char *uuid, struct task_end *out)
{
    struct claim claim;
    enum status s = wait_for_lease(sc, h);
    if (s == STATUS_OK)
        s = wait_for_embedder(sc, h);
    if (s == STATUS_OK)
        s = claim_operation(sc, h->stores.db, h->settings, uuid, h->worker_id, &claim);
    if (s == STATUS_CONFLICT)
        return fail(sc, s, "the operation is not to be had");
    if (s != STATUS_OK)
        return s;
    task_execute(&h->host, uuid, claim.task_id, h->worker_id, out);
    if (out->outcome == TASK_HAND_BACK || out->outcome == TASK_STOPPED)
        return settle(sc, h, uuid, claim.task_id, out);
    return STATUS_OK;
}

static struct redis *connect_redis(const struct settings *s, int64_t database)
{
    return redis_new(
        &(struct redis_options){.url = s->redis_url, .database = (int)database, .prefix = s->redis_prefix});
}

static void set_up(struct by_hand *h, int wake_fd)
{
    const struct settings *s = h->settings;
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
    h->stores = (struct settle_stores){.db = db_new(&(struct db_options){.url = s->database_url,
                                                                         .application_name = "opstream-worker by hand",
                                                                         .statement_timeout_ms = STATEMENT_MS}),
                                       .queue = connect_redis(s, s->redis_queue_db),
                                       .events = connect_redis(s, s->redis_stream_db)};
    h->host = (struct task_host){
        .settings = s,
        .db = db_new(&(struct db_options){.url = s->database_url, .application_name = "opstream-worker by hand"}),
        .events = connect_redis(s, s->redis_stream_db),
        .embedder_socket = h->embedder.socket,
        .channel = -1,
        .is_told = &is_told};
    h->lease = lease_start(s, &(struct lease_facts){.slots = 0}, wake_fd);
    lease_worker_id(h->lease, h->worker_id);
}

static void tear_down(struct by_hand *h, bool is_settled)
{
    lease_stop(h->lease, is_settled);
    embedder_process_done(&h->embedder);
    redis_free(h->stores.queue);
    redis_free(h->stores.events);
    redis_free(h->host.events);
    db_free(h->stores.db);
    db_free(h->host.db);
}

int by_hand_run(const struct settings *settings, const char *uuid)
{
    struct scope sc;
    struct by_hand h = {.settings = settings};
    struct task_end end = {.outcome = TASK_LOST};
    scope_init(&sc, uuid);
    scoped_fd int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum status s = embedder_process_init(&sc, &h.embedder);
    if (s == STATUS_OK) {
        set_up(&h, wake_fd);
        embedder_process_start(&h.embedder);
        s = run(&sc, &h, uuid, &end);
        tear_down(&h, s == STATUS_OK || s == STATUS_CONFLICT);
    }
    if (s != STATUS_OK)
        log_error("task_not_run", log_text("operation", uuid), log_text("problem", sc.problem_text));
    scope_done(&sc);
    return s == STATUS_OK && end.outcome == TASK_COMPLETED ? 0 : 1;
}
