#include "api/relay/silent.h"

#include "api/relay/hub.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"

enum { TICKS_MS = 100 }; /* the kernel's clock ticks more coarsely than ours */

void silent_ask(struct hub *hub, int64_t user_id)
{
    struct silence *s = &hub->silence;
    for (int i = 0; i < s->asked_count; i++) {
        if (s->asked[i] == user_id)
            return;
    }
    if (s->asked_count < MOST_ASKED)
        s->asked[s->asked_count++] = user_id;
}

static bool is_asked(const struct silence *s, const struct client *c)
{
    for (int i = 0; i < s->asked_count; i++) {
        if (s->asked[i] == c->user_id)
            return c->is_counted && c->asked_ms == 0 && c->state == CLIENT_OPEN;
    }
    return false;
}

static void ask_all(struct hub *hub, int64_t now_ms)
{
    for (struct client *c = hub->clients; c; c = c->next) {
        if (!is_asked(&hub->silence, c))
            continue;
        c->asked_ms = now_ms;
        if (!wire_is_busy(c) && c->queue_count == 0)
            client_send(c, hub->heartbeats[c->format]); /* else what waits asks as well */
    }
    hub->silence.asked_count = 0;
    hub->silence.check_until_ms = now_ms + 2 * SILENT_AFTER_MS;
}

static void check(struct client *c, int64_t now_ms)
{
    if (c->asked_ms == 0 || now_ms - c->asked_ms < SILENT_AFTER_MS)
        return;
    bool is_alive = c->heard_ms >= c->asked_ms || (!c->has_ponged && !wire_is_unheard(c, SILENT_AFTER_MS - TICKS_MS));
    c->asked_ms = 0;
    if (is_alive || c->state >= CLIENT_CLOSING)
        return;
    log_info("websocket_silent", log_int("user", c->user_id));
    metrics_add(METRIC_WS_CONNECTIONS, client_type(c), "silent", 1);
    c->state = CLIENT_CLOSING;
    client_uncount(c);
    wire_cut(c, true);
}

void silent_tick(struct hub *hub, int64_t now_ms)
{
    struct silence *s = &hub->silence;
    for (struct client *c = s->check_until_ms ? hub->clients : NULL; c; c = c->next)
        check(c, now_ms);
    if (now_ms >= s->check_until_ms)
        s->check_until_ms = 0;
    if (s->asked_count > 0)
        ask_all(hub, now_ms);
}

bool silent_hold(struct client *c)
{
    struct hub *hub = c->hub;
    if (c->was_held || hub->is_draining || hub->silence.held_count >= MOST_HELD)
        return false;
    hub->silence.held_count++;
    c->was_held = c->is_held = true;
    wheel_put(&hub->wheel, &c->timer, clock_monotonic_ms() + HELD_MS);
    return true;
}

void silent_end_hold(struct client *c)
{
    c->is_held = false;
    c->hub->silence.held_count--;
    if (c->hub->is_draining || !lookup_open(c))
        wire_drop(c);
}
