/* Streams on their way between the HTTP server and the loop, see stream.h. */
#include "api/relay/stream_state.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS = 64 };

struct streams {
    struct hub *hub;
    uv_async_t wake;
    uv_poll_t poll; /* of `epoll` */
    int epoll;      /* what the sockets of streams tell: libuv's handles are larger than all that we keep of one */
    struct stream *ready;
    pthread_mutex_t lock; /* guards what follows */
    struct stream *posted, **last_posted;
};

/* ---- the HTTP server's threads ---- */

struct stream *stream_new(const struct stream_wish *wish)
{
    struct stream *s = must_calloc(1, sizeof *s);
    s->is_poll = wish->is_poll;
    s->wait_ms = wish->wait_ms;
    s->user_id = wish->user_id;
    s->api_key_id = wish->api_key_id;
    s->expires_at = wish->expires_at;
    s->is_superuser = wish->is_superuser;
    if (wish->operation_id)
        snprintf(s->operation_id, sizeof s->operation_id, "%s", wish->operation_id);
    s->after = wish->after ? must_strdup(wish->after) : NULL;
    return s;
}

static void stream_free(struct stream *s)
{
    free(s->after);
    text_free(&s->body);
    text_free(&s->rest);
    poll_answer_done(&s->gathered);
    free(s);
}

static void post(struct stream *s, enum post what)
{
    struct streams *ss = s->streams;
    s->post = what;
    s->next_posted = NULL;
    pthread_mutex_lock(&ss->lock);
    *ss->last_posted = s;
    ss->last_posted = &s->next_posted;
    pthread_mutex_unlock(&ss->lock);
    uv_async_send(&ss->wake);
}

void stream_attach(struct streams *ss, struct stream *s, const struct stream_http *http)
{
    s->streams = ss;
    s->http = *http;
    post(s, POST_ATTACHED);
}

enum stream_answer stream_answer(const struct stream *s)
{
    return s->answer;
}

enum status stream_refusal(const struct stream *s, const char **out_reason, int64_t *out_most)
{
    *out_reason = s->reason;
    *out_most = s->most;
    return s->refusal;
}

struct text *stream_body(struct stream *s)
{
    return &s->body;
}

void stream_flow(struct stream *s)
{
    post(s, POST_FLOWS);
}

enum stream_end stream_end(const struct stream *s)
{
    return s->end;
}

void stream_done(struct stream *s)
{
    if (!s)
        return;
    if (s->client)
        post(s, POST_LEFT); /* the client went while the head was sent */
    else
        stream_free(s);
}

/* ---- the sockets ---- */

static void control(struct stream *s, int what)
{
    struct epoll_event e = {.events = EPOLLRDHUP | (s->awaits_room ? EPOLLOUT : 0u), .data.ptr = s};
    if (epoll_ctl(s->streams->epoll, what, s->http.fd, &e) != 0)
        log_warning("epoll", log_text("problem", strerror(errno)));
}

void stream_watch(struct stream *s, bool awaits_room)
{
    if (s->is_watched && s->awaits_room == awaits_room)
        return;
    s->awaits_room = awaits_room;
    control(s, s->is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
    s->is_watched = true;
}

void stream_unwatch(struct stream *s)
{
    if (s->is_watched)
        control(s, EPOLL_CTL_DEL);
    s->is_watched = false;
}

static void on_sockets(uv_poll_t *poll, int status, int uv_events)
{
    (void)status;
    (void)uv_events;
    struct streams *ss = poll->data;
    struct epoll_event events[EVENTS];
    int n = epoll_wait(ss->epoll, events, EVENTS, 0);
    for (int i = 0; i < n; i++) {
        struct stream *s = events[i].data.ptr;
        s->has_hung_up = s->has_hung_up || events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
        if (s->has_hung_up)
            stream_unwatch(s); /* it would be told again and again */
        stream_ready(s);
    }
}

/* ---- given back ---- */

static const char *transport(const struct stream *s)
{
    return s->is_poll ? "poll" : "sse";
}

void stream_ready(struct stream *s)
{
    struct streams *ss = s->streams;
    if (s->ready_link)
        return;
    s->next_ready = ss->ready;
    if (s->next_ready)
        s->next_ready->ready_link = &s->next_ready;
    s->ready_link = &ss->ready;
    ss->ready = s;
    uv_async_send(&ss->wake);
}

static void not_ready(struct stream *s)
{
    if (!s->ready_link)
        return;
    *s->ready_link = s->next_ready;
    if (s->next_ready)
        s->next_ready->ready_link = s->ready_link;
    s->ready_link = NULL;
}

static void let_client_go(struct stream *s)
{
    struct client *c = s->client;
    not_ready(s);
    s->client = NULL;
    if (s->is_counted)
        metrics_add(METRIC_STREAMS_OPEN, transport(s), NULL, -1);
    s->is_counted = false;
    c->hub->let_go(c);
}

static void give_back(struct stream *s)
{
    stream_unwatch(s);
    s->is_ours = false;
    s->http.resume(s->http.context);
}

void stream_count(struct stream *s)
{
    s->is_counted = true;
    metrics_add(METRIC_STREAMS_OPEN, transport(s), NULL, 1);
}

void stream_begin(struct stream *s)
{
    s->answer = STREAM_BEGINS;
    give_back(s);
}

static void answer(struct stream *s, enum stream_answer what, const char *outcome)
{
    metrics_add(METRIC_STREAMS, transport(s), outcome, 1);
    s->answer = what;
    let_client_go(s);
    give_back(s);
}

void stream_refuse(struct stream *s, enum status status, const char *reason)
{
    s->refusal = status;
    snprintf(s->reason, sizeof s->reason, "%s", reason);
    answer(s, STREAM_REFUSED, "refused");
}

void stream_reply(struct stream *s)
{
    answer(s, STREAM_BODY, "answered");
}

void stream_finish(struct stream *s, enum stream_end end)
{
    s->end = end;
    answer(s, STREAM_BROKEN, end == STREAM_ENDED ? "ended" : "cut");
}

static int64_t limit_of(const struct client *c)
{
    const struct settings *settings = c->hub->settings;
    const struct {
        const char *why;
        int64_t most;
    } limits[] = {
        {"user_limit", settings->ws_max_per_user},
        {"operation_limit", settings->ws_max_per_operation},
        {"user_rate", settings->ws_connects_per_user},
    };
    for (size_t i = 0; c->answer.why && i < array_len(limits); i++) {
        if (strcmp(limits[i].why, c->answer.why) == 0)
            return limits[i].most;
    }
    return settings->ws_max_total;
}

void stream_refuse_client(struct stream *s, const struct client *c)
{
    s->most = limit_of(c);
    stream_refuse(s, c->answer.status == STATUS_OK ? STATUS_RATE_LIMITED : c->answer.status, c->refusal);
}

/* ---- taken over ---- */

static void attach(struct streams *ss, struct stream *s)
{
    struct hub *hub = ss->hub;
    struct client *c = client_new(hub, s->is_poll ? &poll_wire : &event_wire);
    s->is_ours = true;
    s->client = c;
    c->wire = s;
    c->kind = s->operation_id[0] ? WS_OPERATION : WS_OPERATIONS;
    c->format = s->is_poll ? FRAME_LINE : FRAME_SSE;
    memcpy(c->target, s->operation_id, sizeof s->operation_id);
    c->user_id = s->user_id;
    c->api_key_id = s->api_key_id;
    c->expires_at = s->expires_at;
    c->is_superuser = s->is_superuser;
    c->arrival->head.last_id = s->after ? arena_strdup(&c->arrival->scope.arena, s->after) : NULL;
    free(s->after);
    s->after = NULL;
    s->due_ms = clock_monotonic_ms() + s->wait_ms;
    c->answer_at_ms = s->is_poll ? s->due_ms : 0;
    if (s->is_poll)
        stream_watch(s, false);
    if (hub->shared->client_count > hub->settings->ws_max_total) {
        c->refusal = "too many connections to this server";
        c->answer.why = "instance_limit";
    }
    if (hub->is_draining)
        stream_refuse(s, STATUS_BUSY, "this server is about to end");
    else
        client_begin(c);
}

static void take(struct streams *ss, struct stream *s)
{
    switch (s->post) {
    case POST_ATTACHED:
        attach(ss, s);
        return;
    case POST_FLOWS:
        s->is_ours = s->is_begun = true;
        stream_watch(s, false);
        stream_ready(s);
        return;
    case POST_LEFT:
        metrics_add(METRIC_STREAMS, transport(s), "cut", 1);
        let_client_go(s);
        stream_free(s);
        return;
    }
}

static void take_posted(struct streams *ss)
{
    pthread_mutex_lock(&ss->lock);
    struct stream *list = ss->posted;
    ss->posted = NULL;
    ss->last_posted = &ss->posted;
    pthread_mutex_unlock(&ss->lock);
    for (struct stream *next; list; list = next) {
        next = list->next_posted;
        take(ss, list);
    }
}

static void turn(struct stream *s)
{
    if (!s->is_ours)
        return;
    if (s->has_hung_up) {
        stream_finish(s, STREAM_CUT);
        return;
    }
    struct client *c = s->client;
    client_ref(c);
    if (s->is_poll)
        poll_turn(s);
    else
        event_turn(s);
    client_unref(c);
}

static void on_wake(uv_async_t *wake)
{
    struct streams *ss = wake->data;
    take_posted(ss);
    struct stream *list = ss->ready; /* who becomes ready meanwhile has the next turn */
    ss->ready = NULL;
    if (list)
        list->ready_link = &list;
    while (list) {
        struct stream *s = list;
        not_ready(s);
        turn(s);
    }
}

/* ---- beginning and end ---- */

enum status streams_new(struct scope *sc, struct hub *hub)
{
    struct streams *ss = must_calloc(1, sizeof *ss);
    hub->streams = ss;
    ss->hub = hub;
    ss->last_posted = &ss->posted;
    ss->wake.data = ss->poll.data = ss;
    pthread_mutex_init(&ss->lock, NULL);
    ss->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (ss->epoll < 0 || uv_async_init(hub->loop, &ss->wake, on_wake) != 0 ||
        uv_poll_init(hub->loop, &ss->poll, ss->epoll) != 0 || uv_poll_start(&ss->poll, UV_READABLE, on_sockets) != 0)
        return fail(sc, STATUS_INTERNAL, "the relay's loop cannot watch its streams");
    return STATUS_OK;
}

void streams_stop(struct streams *ss)
{
    take_posted(ss);
    for (struct client *c = ss->hub->clients, *next; c; c = next) {
        next = c->next;
        if (c->ops == &poll_wire || c->ops == &event_wire)
            stream_finish(stream_of(c), STREAM_CUT);
    }
    uv_close((uv_handle_t *)&ss->wake, NULL);
    uv_close((uv_handle_t *)&ss->poll, NULL);
}

void streams_free(struct streams *ss)
{
    if (!ss)
        return;
    close(ss->epoll);
    pthread_mutex_destroy(&ss->lock);
    free(ss);
}
