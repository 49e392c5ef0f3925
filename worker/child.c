#include "worker/child.h"

#include "common/fault.h"
#include "common/log.h"
#include "worker/spawn.h"
#include "worker/task_batch.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const char IDLE_NAME[] = "opstream-worker idle";

static volatile sig_atomic_t is_told; /* owner: the signal handler and the loop below */

static void on_term(int signal_number)
{
    (void)signal_number;
    is_told = 1;
}

static void set_signals(void)
{
    struct sigaction act = {.sa_handler = on_term};
    sigaction(SIGTERM, &act, NULL);
    signal(SIGINT, SIG_IGN); /* a terminal's Ctrl-C is the supervisor's to deal with */
    signal(SIGPIPE, SIG_IGN);
}

static void say(const struct report *report)
{
    ssize_t n;
    do {
        n = send(SPAWN_FD, report, sizeof *report, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
}

static void forward_metric(enum metric m, enum metric_action action, const char *label1, const char *label2,
                           double amount)
{
    struct report r = {.kind = REPORT_METRIC};
    r.metric.metric = m;
    r.metric.action = action;
    r.metric.amount = amount;
    r.metric.has_label1 = label1 != NULL;
    r.metric.has_label2 = label2 != NULL;
    snprintf(r.metric.label1, sizeof r.metric.label1, "%s", label1 ? label1 : "");
    snprintf(r.metric.label2, sizeof r.metric.label2, "%s", label2 ? label2 : "");
    say(&r);
}

/* So that nobody who ends the sessions of this task finds ours. */
static void leave_session(struct db *db)
{
    struct scope sc;
    scope_init(&sc, NULL);
    db_rename(db, IDLE_NAME);
    if (db_run(&sc, db, "SELECT set_config('application_name', $1::text, false)", NULL, IDLE_NAME) != STATUS_OK)
        db_disconnect(db);
    scope_done(&sc);
}

static void run_one(const struct task_host *host, const struct order *order)
{
    struct report r = {.kind = REPORT_END};
    is_told = 0;
    task_execute(host, order->operation_id, order->task_id, order->worker_id, &r.end);
    say(&r);
    (void)FAULT(AFTER_END_REPORTED, order->operation_id);
    leave_session(host->db);
}

/* Connected ahead of the first task. Whether it works shows then. */
static void connect_ahead(const struct task_host *host)
{
    leave_session(host->db);
    struct scope sc;
    scope_init(&sc, NULL);
    if (redis_run(&sc, host->events, NULL, "PING") != STATUS_OK)
        log_debug("child_without_redis", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static void run_batch(const struct task_host *host, const struct batch_order *order, struct batch_page *page)
{
    is_told = 0;
    task_batch(host, order, page, say);
    leave_session(host->db);
}

static bool is_batch(const struct batch_order *b, ssize_t len)
{
    size_t head = offsetof(struct batch_order, items);
    return len >= (ssize_t)head && b->kind == ORDER_BATCH && b->count > 0 && b->count <= MOST_IN_BATCH &&
           (size_t)len == head + b->count * sizeof b->items[0];
}

static void serve(const struct task_host *host, struct batch_page *page)
{
    union {
        struct order one;
        struct batch_order many;
    } order;
    for (;;) {
        ssize_t n = recv(SPAWN_FD, &order, sizeof order, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (is_batch(&order.many, n))
            run_batch(host, &order.many, page);
        else if (n != (ssize_t)sizeof order.one)
            return; /* the supervisor wants no more of us, or is gone */
        else if (order.one.kind == ORDER_RUN)
            run_one(host, &order.one);
    }
}

static struct batch_page *map_page(void)
{
    struct batch_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, SPAWN_FD + 1, 0);
    return page == MAP_FAILED ? NULL : page;
}

int child_main(const struct settings *settings, const char *embedder_socket)
{
    log_set_program("task");
    set_signals();
    metrics_forward(forward_metric);
    struct task_host host = {
        .settings = settings,
        .db = db_new(&(struct db_options){.url = settings->database_url, .application_name = IDLE_NAME}),
        .events = redis_new(&(struct redis_options){
            .url = settings->redis_url, .database = (int)settings->redis_stream_db, .prefix = settings->redis_prefix}),
        .embedder_socket = embedder_socket,
        .channel = SPAWN_FD,
        .is_told = &is_told,
    };
    connect_ahead(&host);
    struct batch_page *page = map_page();
    if (page) {
        say(&(struct report){.kind = REPORT_READY});
        serve(&host, page);
    } else {
        log_error("no_shared_memory", log_text("reason", strerror(errno)));
    }
    redis_free(host.events);
    db_free(host.db);
    return 0;
}
