#include "worker/supervisor_state.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/message.h"

#include <string.h>

enum { PING_MS = 4000 }; /* of the control channels' connection */

/* Hints only: what they say is looked up before anything is stopped. */
static void on_control(struct supervisor *w, const char *json)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *message = NULL;
    if (json_parse(&sc, json, strlen(json), &message) == STATUS_OK) {
        const char *action = json_get_text(message, "action", "");
        if (strcmp(action, "cancel") == 0)
            w->check_at_ms = 0;
        else if (strcmp(action, "drain") == 0)
            begin_drain(w);
    }
    scope_done(&sc);
}

static void subscribe(struct scope *sc, struct supervisor *w)
{
    const char *all = redis_key(sc, w->control, MESSAGE_CONTROL);
    const char *own = redis_key(sc, w->control, MESSAGE_CONTROL_WORKER, w->worker_id);
    const char *argv[] = {"SUBSCRIBE", all, own};
    w->is_subscribed = redis_send(sc, w->control, array_len(argv), argv) == STATUS_OK;
    w->control_heard_ms = w->control_sent_ms = clock_monotonic_ms();
}

void read_control(struct supervisor *w)
{
    struct scope sc;
    scope_init(&sc, NULL);
    redisReply *reply = NULL;
    while (w->is_subscribed && (w->is_subscribed = redis_receive(&sc, w->control, &reply) == STATUS_OK) && reply) {
        w->control_heard_ms = clock_monotonic_ms();
        if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 && reply->element[0]->str &&
            strcmp(reply->element[0]->str, "message") == 0 && reply->element[2]->str)
            on_control(w, reply->element[2]->str);
        freeReplyObject(reply);
    }
    scope_done(&sc);
}

void keep_control(struct supervisor *w)
{
    int64_t now = clock_monotonic_ms();
    struct scope sc;
    scope_init(&sc, NULL);
    const char *ping[] = {"PING"};
    if (w->is_subscribed && now - w->control_heard_ms > 2 * (int64_t)PING_MS + REDIS_TIMEOUT_MS) {
        redis_drop(w->control);
        w->is_subscribed = false;
    }
    if (!w->is_subscribed) {
        subscribe(&sc, w);
    } else if (now - w->control_sent_ms >= PING_MS) {
        w->is_subscribed = redis_send(&sc, w->control, 1, ping) == STATUS_OK;
        w->control_sent_ms = now;
    }
    scope_done(&sc);
}
