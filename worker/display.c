#include "worker/supervisor_state.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"

#include <unistd.h>

enum { DISPLAY_MS = 2000 };

static void put_doing(struct text *out, const struct supervisor *w)
{
    json_open(out, NULL, '[');
    for (size_t i = 0; i < w->slot_count; i++) {
        const struct slot *slot = &w->slots[i];
        static const char *const states[] = {"starting", "starting", "idle", "busy", "starting"};
        json_open(out, NULL, '{');
        json_text(out, "state", states[slot->state]);
        json_int(out, "pid", slot->pid);
        if (slot->is_fast_only)
            json_bool(out, "fast_only", true);
        if (slot_has_task(slot)) {
            json_text(out, "operation_id", slot->operation_id);
            json_text(out, "type", operation_kind(slot->type)->name);
            json_int(out, "attempt", slot->attempt);
        }
        json_close(out, '}');
    }
    json_close(out, ']');
}

void show(struct supervisor *w)
{
    int64_t now = clock_monotonic_ms();
    if (now < w->display_at_ms)
        return;
    w->display_at_ms = now + DISPLAY_MS;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped_text doing = {0};
    put_doing(&doing, w);
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    const char *key = redis_key(&sc, w->stores.events, "worker:%s", w->worker_id);
    enum status s = redis_run(
        &sc, w->stores.events, NULL, "HSET %s host %s pid %d slots %d queues %s draining %s doing %s", key, host,
        (int)getpid(), (int)w->slot_count, w->settings->worker_queues, w->is_draining ? "true" : "false", doing.data);
    if (s == STATUS_OK)
        s = redis_run(&sc, w->stores.events, NULL, "EXPIRE %s %d", key, (int)w->settings->worker_lease_seconds + 10);
    if (s != STATUS_OK)
        log_debug("worker_not_shown", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

void hide(struct supervisor *w)
{
    struct scope sc;
    scope_init(&sc, NULL);
    if (redis_run(&sc, w->stores.events, NULL, "DEL %s", redis_key(&sc, w->stores.events, "worker:%s", w->worker_id)) !=
        STATUS_OK)
        log_debug("worker_not_hidden", log_text("problem", sc.problem_text));
    scope_done(&sc);
}
