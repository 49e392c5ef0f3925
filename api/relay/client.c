#include "api/relay/hub.h"

#include "common/clock.h"
#include "common/metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

const char *client_type(const struct client *c)
{
    return c->answer.operation_type ? c->answer.operation_type : ws_kind_name(c->kind);
}

struct client *client_new(struct hub *hub, const struct wire_ops *ops)
{
    struct client *c = must_calloc(1, sizeof *c);
    c->hub = hub;
    c->ops = ops;
    c->refs = 1;
    c->fd = -1;
    c->arrival = must_calloc(1, sizeof *c->arrival);
    scope_init(&c->arrival->scope, NULL);
    c->next = hub->clients;
    if (c->next)
        c->next->link = &c->next;
    c->link = &hub->clients;
    hub->clients = c;
    hub->client_count++;
    return c;
}

void client_ref(struct client *c)
{
    c->refs++;
}

void client_drop_arrival(struct client *c)
{
    if (!c->arrival)
        return;
    text_free(&c->arrival->early);
    scope_done(&c->arrival->scope);
    free(c->arrival);
    c->arrival = NULL;
}

void client_unref(struct client *c)
{
    if (--c->refs > 0)
        return;
    client_drop_queue(c);
    replay_release(&c->replay);
    text_free(&c->message);
    frame_unref(c->answer.state);
    client_drop_arrival(c);
    free(c);
}

/* ---- counted, closed, gone ---- */

static const char *user_counter(const struct client *c, char out[64])
{
    snprintf(out, 64, "user:%lld", (long long)c->user_id);
    return out;
}

static const char *operation_counter(const struct client *c, char out[96])
{
    snprintf(out, 96, "operation:%s", c->target);
    return out;
}

const char *client_count(struct client *c)
{
    char user[64], operation[96];
    const struct settings *s = c->hub->settings;
    c->answer.why = "user_limit";
    if (!hub_count_up(c->hub, user_counter(c, user), s->ws_max_per_user))
        return "too many connections of this user";
    if (c->kind == WS_OPERATION && !hub_count_up(c->hub, operation_counter(c, operation), s->ws_max_per_operation)) {
        hub_count_down(c->hub, user);
        c->answer.why = "operation_limit";
        return "too many connections to this operation";
    }
    c->is_counted = true;
    return NULL;
}

void client_close(struct client *c, int code, const char *reason)
{
    if (c->state >= CLIENT_CLOSING)
        return;
    scan_abandon(c);
    c->state = CLIENT_CLOSING;
    struct frame *f = c->ops->goodbye(code, reason);
    client_push(c, f);
    frame_unref(f);
    wheel_put(&c->hub->wheel, &c->timer, clock_monotonic_ms() + CLOSE_MS);
}

void client_dismiss(struct client *c)
{
    bool has_last_word = scan_dismiss(c);
    client_uncount(c); /* it may come to another instance before its end of the connection is closed here */
    if ((c->speaks_resume || has_last_word) && c->state != CLIENT_CLOSING) {
        client_close(c, CLOSE_RESTART, "this server restarts: reconnect with last_id");
        return;
    }
    c->state = CLIENT_CLOSING;
    wire_cut(c, false);
}

void client_uncount(struct client *c)
{
    char user[64], operation[96];
    lookup_leave(c);
    if (!c->is_counted)
        return;
    c->is_counted = false;
    hub_count_down(c->hub, user_counter(c, user));
    if (c->kind == WS_OPERATION)
        hub_count_down(c->hub, operation_counter(c, operation));
    if (c->opened_ms == 0)
        return; /* it waits for something else than events, and is counted for its user alone */
    metrics_add(METRIC_WS_ACTIVE, client_type(c), NULL, -1);
    metrics_observe(METRIC_WS_CONNECTION_SECONDS, client_type(c), NULL,
                    (double)(clock_monotonic_ms() - c->opened_ms) / 1000);
}

void client_gone(struct client *c)
{
    wheel_take(&c->timer);
    channel_leave(&c->listener, clock_monotonic_ms());
    scan_abandon(c);
    client_uncount(c);
    c->state = CLIENT_GONE;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    c->hub->client_count--;
    c->wire = NULL;
    client_drop_queue(c);
    client_unref(c);
}

/* ---- time ---- */

static int64_t interval_ms(const struct client *c)
{
    int64_t seconds = c->hub->settings->ws_heartbeat_interval;
    return (seconds > 0 ? seconds : 1) * 1000;
}

static void plan_timer(struct client *c)
{
    int64_t due = c->next_ping_ms;
    if (c->expires_at) {
        int64_t left_ms = c->expires_at * 1000 - clock_wall_ms();
        int64_t expiry = clock_monotonic_ms() + left_ms;
        due = expiry < due ? expiry : due;
    }
    if (c->answer_at_ms && c->answer_at_ms < due)
        due = c->answer_at_ms;
    if (c->cut_at_ms && c->cut_at_ms < due)
        due = c->cut_at_ms;
    wheel_put(&c->hub->wheel, &c->timer, due);
}

void client_start_timer(struct client *c)
{
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
    (void)n;
    c->heard_ms = clock_monotonic_ms();
    c->next_ping_ms = c->heard_ms + interval_ms(c) / 2 + random % (uint32_t)(interval_ms(c) / 2 + 1);
    if (client_is_poll(c)) /* says nothing and is told nothing until then */
        c->heard_ms = c->next_ping_ms = c->answer_at_ms + interval_ms(c);
    plan_timer(c);
}

void client_timer(struct wheel_entry *e, void *unused)
{
    (void)unused;
    struct client *c = (struct client *)((char *)e - offsetof(struct client, timer));
    int64_t now = clock_monotonic_ms();
    if (c->is_held) {
        silent_end_hold(c);
        return;
    }
    if (c->state == CLIENT_CLOSING) {
        wire_cut(c, true);
        return;
    }
    if (c->cut_at_ms && now >= c->cut_at_ms) {
        client_dismiss(c);
        return;
    }
    if (c->expires_at && clock_wall_ms() >= c->expires_at * 1000) {
        client_close(c, CLOSE_POLICY, "token expired");
        return;
    }
    if (c->answer_at_ms && now >= c->answer_at_ms)
        c->ops->due(c);
    if (c->format == FRAME_SSE && !wire_is_busy(c) && !wire_is_unheard(c, 2 * interval_ms(c)))
        client_heard(c); /* it has no word to answer: its kernel's must do */
    if (now - c->heard_ms > 2 * interval_ms(c) + interval_ms(c) / 2) {
        c->state = CLIENT_CLOSING;
        wire_cut(c, true); /* nobody is there */
        return;
    }
    if (now >= c->next_ping_ms) {
        c->next_ping_ms = now + interval_ms(c);
        if (c->state != CLIENT_OPENING && c->queue_count == 0 && !wire_is_busy(c))
            client_send(c, c->hub->heartbeats[c->format]);
    }
    plan_timer(c);
}
