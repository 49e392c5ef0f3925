#include "api/relay/subscriber.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/sentinel.h"

#include <fcntl.h>
#include <hiredis/adapters/libuv.h>
#include <hiredis/async.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { FIRST_PAUSE_MS = 50, LONGEST_PAUSE_MS = 2000, CONNECT_MS = 5000, SILENCE_MS = 15000, SENTINEL_MS = 1000 };

struct subscriber {
    uv_loop_t *loop;
    struct redis_address address;
    char *channel;
    struct subscriber_events events;
    redisAsyncContext *context;
    uv_timer_t pause;
    uv_getaddrinfo_t resolving;
    uv_work_t asking;  /* the sentinels */
    char primary[256]; /* its host, and port below; "" = none knew; written beside the loop while is_asking */
    int primary_port;
    bool is_asking, is_resolving, is_up, is_stopped;
    int64_t pause_ms, heard_ms;
};

static void connect_now(struct subscriber *s);

static void on_pause(uv_timer_t *pause)
{
    connect_now(pause->data);
}

static void try_later(struct subscriber *s)
{
    if (s->is_stopped)
        return;
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
    (void)n;
    s->pause_ms = s->pause_ms ? s->pause_ms * 2 : FIRST_PAUSE_MS;
    if (s->pause_ms > LONGEST_PAUSE_MS)
        s->pause_ms = LONGEST_PAUSE_MS;
    uv_timer_start(&s->pause, on_pause, (uint64_t)(s->pause_ms / 2 + random % (uint32_t)(s->pause_ms / 2 + 1)), 0);
}

static void note_lost(struct subscriber *s, const char *why)
{
    s->context = NULL;
    if (s->is_up) {
        s->is_up = false;
        if (!s->is_stopped)
            log_warning("relay_subscription_lost", log_text("reason", why));
        s->events.on_lost(s->events.context);
    }
    try_later(s);
}

/* Ends the connection from our side. */
static void drop(struct subscriber *s, const char *why)
{
    redisAsyncContext *context = s->context;
    if (!context)
        return;
    context->data = NULL; /* its last callbacks are none of ours */
    redisAsyncFree(context);
    note_lost(s, why);
}

static void note_up(struct subscriber *s)
{
    if (s->is_up)
        return;
    s->is_up = true;
    s->pause_ms = 0;
    log_info("relay_subscribed");
    s->events.on_up(s->events.context);
}

/* Everything that comes on a subscription: confirmations and messages. */
static void on_reply(redisAsyncContext *context, void *reply, void *unused)
{
    (void)unused;
    struct subscriber *s = context->data;
    const redisReply *r = reply;
    if (!s || !r)
        return;
    s->heard_ms = clock_monotonic_ms();
    if (r->type == REDIS_REPLY_ERROR) {
        drop(s, r->str);
        return;
    }
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 3 || r->element[0]->type != REDIS_REPLY_STRING ||
        r->element[1]->type != REDIS_REPLY_STRING)
        return;
    const char *kind = r->element[0]->str, *channel = r->element[1]->str;
    bool is_own = strcmp(channel, s->channel) == 0;
    if (is_own && strcmp(kind, "subscribe") == 0)
        note_up(s);
    else if (is_own && strcmp(kind, "message") != 0)
        return;
    else if (strcmp(kind, "subscribe") == 0)
        s->events.on_subscribed(s->events.context, channel);
    else if (strcmp(kind, "unsubscribe") == 0)
        s->events.on_unsubscribed(s->events.context, channel);
    else if (strcmp(kind, "message") == 0 && r->element[2]->type == REDIS_REPLY_STRING)
        s->events.on_message(s->events.context, channel, r->element[2]->str, r->element[2]->len);
}

static void on_auth(redisAsyncContext *context, void *reply, void *unused)
{
    (void)unused;
    const redisReply *r = reply;
    if (context->data && r && r->type == REDIS_REPLY_ERROR)
        drop(context->data, "the user or password of REDIS_URL is refused");
}

static void on_role(redisAsyncContext *context, void *reply, void *unused)
{
    (void)unused;
    if (context->data && reply && !redis_reply_is_primary(reply))
        drop(context->data, "the server that the sentinels named is no primary");
}

static void on_connected(const redisAsyncContext *context, int status)
{
    struct subscriber *s = context->data;
    if (!s)
        return;
    if (status != REDIS_OK) {
        note_lost(s, context->errstr);
        return;
    }
    s->heard_ms = clock_monotonic_ms();
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    (void)status;
    struct subscriber *s = context->data;
    if (s)
        note_lost(s, context->errstr ? context->errstr : "closed");
}

static void begin(struct subscriber *s, redisAsyncContext *context)
{
    if (!context || context->err || redisLibuvAttach(context, s->loop) != REDIS_OK) {
        log_debug("relay_connect_failed", log_text("reason", context ? context->errstr : "no memory"));
        if (context)
            redisAsyncFree(context);
        try_later(s);
        return;
    }
    context->data = s;
    s->context = context;
    s->heard_ms = clock_monotonic_ms();
    fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
    if (!s->address.is_unix)
        redisEnableKeepAlive(&context->c);
    redisAsyncSetConnectCallback(context, on_connected);
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    if (s->address.password && s->address.user)
        redisAsyncCommand(context, on_auth, NULL, "AUTH %s %s", s->address.user, s->address.password);
    else if (s->address.password)
        redisAsyncCommand(context, on_auth, NULL, "AUTH %s", s->address.password);
    if (s->address.sentinels)
        redisAsyncCommand(context, on_role, NULL, "ROLE");
    redisAsyncCommand(context, on_reply, NULL, "SUBSCRIBE %s", s->channel);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct subscriber *s = request->data;
    char ip[64] = "";
    s->is_resolving = false;
    if (status == 0 && found)
        getnameinfo(found->ai_addr, found->ai_addrlen, ip, sizeof ip, NULL, 0, NI_NUMERICHOST);
    uv_freeaddrinfo(found);
    if (s->is_stopped)
        return;
    if (ip[0])
        begin(s, redisAsyncConnect(ip, s->address.sentinels ? s->primary_port : s->address.port));
    else
        try_later(s);
}

/* Names are looked up beside the loop: a name server that does not answer must not stop it. */
static void resolve(struct subscriber *s, const char *host)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    s->is_resolving = uv_getaddrinfo(s->loop, &s->resolving, on_resolved, host, NULL, &hints) == 0;
    if (!s->is_resolving)
        try_later(s);
}

static void ask_sentinels(uv_work_t *asking)
{
    struct subscriber *s = asking->data;
    struct scope sc;
    scope_init(&sc, NULL);
    const char *host = "";
    if (sentinels_find_primary(&sc, s->address.sentinels, SENTINEL_MS, &host, &s->primary_port) != STATUS_OK)
        log_debug("relay_connect_failed", log_text("reason", sc.problem_text));
    snprintf(s->primary, sizeof s->primary, "%s", host);
    scope_done(&sc);
}

static void on_asked(uv_work_t *asking, int status)
{
    struct subscriber *s = asking->data;
    s->is_asking = false;
    if (s->is_stopped)
        return;
    if (status == 0 && s->primary[0])
        resolve(s, s->primary);
    else
        try_later(s);
}

static void connect_now(struct subscriber *s)
{
    if (s->is_stopped || s->context || s->is_resolving || s->is_asking)
        return;
    if (s->address.is_unix) {
        begin(s, redisAsyncConnectUnix(s->address.host));
    } else if (s->address.sentinels) {
        s->is_asking = uv_queue_work(s->loop, &s->asking, ask_sentinels, on_asked) == 0;
        if (!s->is_asking)
            try_later(s);
    } else {
        resolve(s, s->address.host);
    }
}

enum status subscriber_new(struct scope *sc, uv_loop_t *loop, const struct redis_address *address, const char *channel,
                           const struct subscriber_events *events, struct subscriber **out)
{
    struct subscriber *s = must_calloc(1, sizeof *s);
    if (uv_timer_init(loop, &s->pause) != 0) {
        free(s);
        return fail(sc, STATUS_INTERNAL, "the relay's loop takes no timer");
    }
    s->loop = loop;
    s->address = *address;
    s->channel = must_strdup(channel);
    s->events = *events;
    s->pause.data = s;
    s->resolving.data = s;
    s->asking.data = s;
    connect_now(s);
    *out = s;
    return STATUS_OK;
}

void subscriber_add(struct subscriber *s, const char *channel)
{
    if (s->is_up)
        redisAsyncCommand(s->context, on_reply, NULL, "SUBSCRIBE %s", channel);
}

void subscriber_remove(struct subscriber *s, const char *channel)
{
    if (s->is_up)
        redisAsyncCommand(s->context, on_reply, NULL, "UNSUBSCRIBE %s", channel);
}

void subscriber_tick(struct subscriber *s)
{
    int64_t silence = clock_monotonic_ms() - s->heard_ms;
    if (s->context && silence > (s->is_up ? SILENCE_MS : CONNECT_MS))
        drop(s, "nothing was heard");
}

void subscriber_stop(struct subscriber *s)
{
    if (!s)
        return;
    s->is_stopped = true;
    if (s->is_resolving)
        uv_cancel((uv_req_t *)&s->resolving);
    if (s->is_asking)
        uv_cancel((uv_req_t *)&s->asking);
    drop(s, "stopped");
    uv_close((uv_handle_t *)&s->pause, NULL);
}

void subscriber_free(struct subscriber *s)
{
    if (!s)
        return;
    free(s->channel);
    free(s);
}
