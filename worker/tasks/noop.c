/* Does nothing, in the ways that tests and benchmarks ask for; only with TEST_OPERATIONS. Its config: {"sleep_ms": n,
 * "events": n, "fail": "transient" | "permanent" | "internal", "crash": signal, "silent": true, "deaf": true,
 * "fail_attempts": n, "sleep_attempts": n}: what
 * is to go wrong or to take long does so in the first n attempts. */
#include "common/clock.h"
#include "common/log.h"
#include "worker/task.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { STEP_MS = 20 };

/* `silent` tells the supervisor nothing; `deaf` does not stop when told to. */
static enum status doze(struct scope *sc, struct task *task, int64_t ms)
{
    bool is_silent = json_get_bool(task->config, "silent", false), is_deaf = json_get_bool(task->config, "deaf", false);
    int64_t until = clock_monotonic_ms() + ms;
    for (int64_t left; (left = until - clock_monotonic_ms()) > 0;) {
        poll(NULL, 0, left < STEP_MS ? (int)left : STEP_MS);
        if (!is_silent)
            task_heartbeat(task);
        enum status s = is_deaf ? STATUS_OK : task_check(sc, task);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static enum status send_events(struct scope *sc, struct task *task, int64_t count)
{
    task->total = count;
    for (int64_t i = 1; i <= count; i++) {
        scoped_text t = {0};
        json_open(&t, NULL, '{');
        json_int(&t, "processed", i);
        json_int(&t, "total", count);
        json_close(&t, '}');
        task->processed = i;
        task_event(sc, task, "processing_progress", 100.0 * (double)i / (double)count, NULL, text_str(&t),
                   i == count ? TASK_EVENT_ALWAYS : 0);
        enum status s = task_check(sc, task);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static enum status end_as_asked(struct scope *sc, const struct task *task)
{
    int64_t limit = json_get_int(task->config, "fail_attempts", INT32_MAX);
    if (task->attempt > limit)
        return STATUS_OK;
    int64_t crash = json_get_int(task->config, "crash", 0);
    if (crash > 0) {
        signal((int)crash, SIG_DFL);
        raise((int)crash);
    }
    const char *how = json_get_text(task->config, "fail", "");
    if (strcmp(how, "transient") == 0)
        return fail(sc, STATUS_UNAVAILABLE, "failed as asked");
    if (strcmp(how, "permanent") == 0)
        return fail(sc, STATUS_INVALID, "failed as asked");
    if (strcmp(how, "internal") == 0)
        return fail(sc, STATUS_INTERNAL, "failed as asked");
    return STATUS_OK;
}

enum status noop_run(struct scope *sc, struct task *task)
{
    if (!task->settings->test_operations)
        return fail(sc, STATUS_INVALID, "operations of type noop are for tests: TEST_OPERATIONS is off");
    enum status s = send_events(sc, task, json_get_int(task->config, "events", 0));
    if (s == STATUS_OK && task->attempt <= json_get_int(task->config, "sleep_attempts", INT32_MAX))
        s = doze(sc, task, json_get_int(task->config, "sleep_ms", 0));
    return s == STATUS_OK ? end_as_asked(sc, task) : s;
}
