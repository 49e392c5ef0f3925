/* From the handshake to the first page: who is it, may it, from where on. */
#include "api/relay/hub.h"

#include "common/clock.h"
#include "common/metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static bool is_auth(const char *why)
{
    static const char *const reasons[] = {"no_token", "bad_token", "bad_key", "inactive", "no_access"};
    for (size_t i = 0; i < array_len(reasons); i++) {
        if (strcmp(reasons[i], why) == 0)
            return true;
    }
    return false;
}

static void refuse(struct client *c, int code, const char *reason)
{
    const char *why = c->answer.why ? c->answer.why : "fault";
    metrics_add(METRIC_WS_CONNECTIONS, client_type(c), "refused", 1);
    metrics_add(METRIC_WS_REFUSALS, why, NULL, 1);
    if (is_auth(why))
        metrics_add(METRIC_WS_AUTH_FAILURES, why, NULL, 1);
    c->refusal = reason;
    client_close(c, code, reason);
}

void client_begin(struct client *c)
{
    if (c->refusal)
        wire_open(c);
    else if (!lookup_open(c))
        wire_drop(c); /* too many at once: it comes again */
}

bool client_is_server_fault(enum status s)
{
    return s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT || s == STATUS_BUSY || status_http(s) >= 500;
}

static void join_channel(struct client *c)
{
    struct scope sc;
    scope_init(&sc, NULL);
    const char *name = hub_channel_name(&sc, c);
    if (!name) {
        c->state = CLIENT_OPEN;
        c->replay.is_live = true;
    } else {
        c->state = CLIENT_SUBSCRIBING;
        const struct channel *channel = channel_join(&c->hub->channels, name, &c->listener);
        if (channel->state == CHANNEL_LIVE || !port_is_up(c->hub->port))
            client_subscribed(c);
    }
    scope_done(&sc);
}

void client_choose_position(struct client *c, const struct open_answer *a, const char *last_id)
{
    struct event_id position = {0};
    bool is_named = last_id && *last_id;
    c->speaks_resume = last_id != NULL;
    c->is_position_known = true;
    if (is_named) {
        c->is_explicit = true;
        if (event_id_parse(last_id, &position) != STATUS_OK) {
            position = (struct event_id){0};
            c->was_truncated = true; /* an id that never was: all that is kept, and a word about it */
        }
    } else if (c->kind == WS_OPERATIONS) {
        position = a->position;
        c->is_position_known = a->has_position;
    }
    /* Who asks on where the last answer ended has had it. */
    c->needs_state = c->kind == WS_OPERATION && !(client_is_poll(c) && is_named && !c->was_truncated);
    replay_start(&c->replay, &position);
    c->wants_page = c->is_position_known;
    c->replay.is_live = !c->is_position_known; /* Redis was away: what comes from now on */
}

void client_opened(struct client *c, const struct open_answer *a, const char *reason)
{
    if (c->state == CLIENT_GONE) { /* while it was looked up */
        frame_unref(a->state);
        c->is_registered = a->is_registered;
        lookup_leave(c);
        return;
    }
    snprintf(c->arrival->reason, sizeof c->arrival->reason, "%s", reason);
    frame_unref(c->answer.state);
    c->answer = *a;
    if (a->status == STATUS_RATE_LIMITED && strcmp(a->why, "user_limit") == 0 && silent_hold(c))
        return;
    c->user_id = a->user_id;
    c->expires_at = a->expires_at;
    c->is_superuser = a->is_superuser;
    c->api_key_id = a->api_key_id;
    c->is_registered = a->is_registered;
    if (c->hub->is_draining)
        wire_drop(c);
    else
        wire_open(c);
}

static const char *refusal_of(struct client *c, int *out_code)
{
    const struct open_answer *a = &c->answer;
    *out_code = CLOSE_POLICY;
    if (c->refusal)
        return c->refusal;
    if (a->status == STATUS_OK)
        return client_count(c);
    if (client_is_server_fault(a->status))
        *out_code = CLOSE_FAULT;
    return c->arrival->reason;
}

static void count_opened(struct client *c, const char *last_id)
{
    c->opened_ms = c->heard_ms;
    metrics_add(METRIC_WS_CONNECTIONS, client_type(c), "connected", 1);
    metrics_add(METRIC_WS_ACTIVE, client_type(c), NULL, 1);
    if (last_id && *last_id)
        metrics_add(METRIC_WS_RECONNECTS, client_type(c), NULL, 1);
}

void client_established(struct client *c)
{
    int code;
    const char *last_id = c->arrival->head.last_id;
    client_start_timer(c);
    const char *refusal = refusal_of(c, &code);
    if (refusal) {
        refuse(c, code, refusal);
        return;
    }
    if (c->format != FRAME_SSE && !client_is_poll(c))
        count_opened(c, last_id);
    client_choose_position(c, &c->answer, last_id);
    client_drop_arrival(c); /* neither token nor path is needed any more */
    join_channel(c);
    access_opened(c);
}
