/* The wire: libwebsockets on the relay's loop. No other file includes it.
 *
 * libwebsockets does the handshake, reads frames, answers pings and closes. What is sent is framed by frame.c and given
 * to lws_write() as raw bytes (LWS_WRITE_HTTP), so that one buffer serves all connections and many frames go in one
 * write; parts that the socket does not take are kept, in order, by libwebsockets, so its own control frames never land
 * inside one of ours. */
#include "api/relay/relay.h"

#include "api/relay/hub.h"
#include "api/relay/taken.h"
#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <libwebsockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SEND_BUFFER_BYTES = 128 << 10, /* the kernel's: more, and it swallows megabytes for a reader that stopped; less, and
                                      a loopback stalls */
    RECEIVE_BYTES = 1024,
    HANDSHAKE_BYTES = 16 << 10, /* room for the echo of a long token */
    HEAD_BYTES = 1024,          /* of the rewritten head */
    FILES_BESIDE_SOCKETS = 4096,
    MOST_FILES = 1 << 20, /* libwebsockets keeps tables of this size */
    OVER_LIMIT = 256,     /* connections that are told of the limit; more are cut */
    DRAIN_GRACE_MS = 2500,
    LEAVE_GRACE_MS = 200,
};

struct adoption {
    struct adoption *next;
    int fd;
    size_t len;
    char head[];
};

struct relay {
    struct hub hub;
    uv_loop_t loop;
    struct lws_context *context;
    struct lws_vhost *vhost;
    struct client *adopting; /* the client of the socket that is being adopted */
    struct lws_protocols protocols[2];
    struct lws_context_creation_info info;
    lws_retry_bo_t no_timers;
    uv_async_t wake;
    pthread_t thread;
    bool is_running;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t is_empty;
    struct adoption *adoptions, **last_adoption;
    int drain_spread_ms; /* -1 = no drain asked for */
    bool should_stop;
    _Atomic int client_count;
};

/* ---- what client.c asks for ---- */

bool wire_is_busy(const struct client *c)
{
    return !c->wire || lws_partial_buffered(c->wire);
}

bool wire_write(struct client *c, const unsigned char *bytes, size_t len)
{
    return lws_write(c->wire, (unsigned char *)bytes, len, LWS_WRITE_HTTP) >= 0;
}

void wire_want_write(struct client *c)
{
    if (c->wire)
        lws_callback_on_writable(c->wire);
}

int64_t wire_taken(const struct client *c)
{
    return c->wire ? taken_bytes(lws_get_socket_fd(c->wire)) : -1;
}

void wire_cut(struct client *c, bool is_hard)
{
    if (!c->wire)
        return;
    if (is_hard) {
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(lws_get_socket_fd(c->wire), SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    }
    lws_set_timeout(c->wire, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
}

/* ---- what libwebsockets tells ---- */

/* The 101 is being written. */
static int add_echo(const struct client *c, struct lws_process_html_args *args)
{
    static const char name[] = "sec-websocket-protocol: ";
    if (!c->head.echo)
        return 0;
    size_t needed = sizeof name + strlen(c->head.echo) + 2;
    if (args->max_len < 0 || (size_t)args->max_len < needed + 4)
        return 1;
    args->p += lws_snprintf(args->p, (size_t)args->max_len, "%s%s\r\n", name, c->head.echo);
    return 0;
}

static void receive(struct lws *wsi, struct client *c, const char *bytes, size_t len)
{
    bool is_final = lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0;
    client_receive(c, bytes, len, lws_is_first_fragment(wsi), is_final, lws_frame_is_binary(wsi));
}

static struct relay *relay_of(const struct client *c)
{
    return (struct relay *)((char *)c->hub - offsetof(struct relay, hub));
}

static void let_go(struct client *c)
{
    struct relay *r = relay_of(c);
    client_gone(c);
    if (atomic_fetch_sub(&r->client_count, 1) > 1)
        return;
    pthread_mutex_lock(&r->lock);
    pthread_cond_broadcast(&r->is_empty);
    pthread_mutex_unlock(&r->lock);
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *unused, void *in, size_t len)
{
    (void)unused;
    struct client *c = wsi ? lws_get_opaque_user_data(wsi) : NULL;
    if (reason == LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED) {
        struct relay *r = lws_context_user(lws_get_context(wsi));
        lws_set_opaque_user_data(wsi, r->adopting);
        r->adopting->wire = wsi;
        r->adopting = NULL;
        return 0;
    }
    if (!c)
        return 0;
    switch ((int)reason) {
    case LWS_CALLBACK_ADD_HEADERS:
        return add_echo(c, in);
    case LWS_CALLBACK_ESTABLISHED:
        client_established(c);
        return 0;
    case LWS_CALLBACK_RECEIVE:
        receive(wsi, c, in, len);
        return 0;
    case LWS_CALLBACK_RECEIVE_PONG:
        client_heard(c);
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        client_writeable(c);
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return c->state == CLIENT_CLOSING ? -1 : 0; /* the answer to our own close frame is not answered again */
    case LWS_CALLBACK_CLOSED:
    case LWS_CALLBACK_WSI_DESTROY:
        lws_set_opaque_user_data(wsi, NULL);
        let_go(c);
        return 0;
    default:
        return 0;
    }
}

/* ---- adoption ---- */

static void shut(int fd)
{
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

static void answer_http(int fd, enum status s, const char *detail)
{
    int http = s == STATUS_UPGRADE ? 426 : 400;
    scoped_text body = {0}, answer = {0};
    text_printf(&body, "{\"detail\":\"%s\"}", detail); /* our own sentences: nothing to escape */
    text_printf(&answer,
                "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: "
                "close\r\n%sSec-WebSocket-Version: 13\r\n"
                "X-Content-Type-Options: nosniff\r\n\r\n",
                http, http == 426 ? "Upgrade Required" : "Bad Request", body.len,
                http == 426 ? "Upgrade: websocket\r\n" : "");
    text_append(&answer, body.data, body.len);
    ssize_t n = send(fd, answer.data, answer.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n;
    shut(fd);
}

/* What is known before anybody is asked. */
static const char *refusal_of(const struct relay *r, const struct ws_head *head)
{
    const struct settings *s = r->hub.settings;
    if (head->kind == WS_UNKNOWN)
        return "there is no such WebSocket endpoint";
    if (!ws_origin_is_allowed(s->cors_origins, head->origin, head->host))
        return "this origin is not allowed";
    if (r->hub.client_count > s->ws_max_total)
        return "too many connections to this server";
    return NULL;
}

static void prepare(int fd)
{
    int bytes = SEND_BUFFER_BYTES, on = 1, flags = fcntl(fd, F_GETFL);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (flags >= 0)
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

void wire_drop(struct client *c)
{
    shut(c->fd);
    c->fd = -1;
    let_go(c);
}

void wire_open(struct client *c)
{
    struct relay *r = relay_of(c);
    int fd = c->fd;
    scoped_text head = {0};
    ws_head_rewrite(&head, &c->head);
    text_append(&head, text_str(&c->early), c->early.len);
    text_free(&c->early);
    prepare(fd);
    c->fd = -1;
    r->adopting = c;
    client_ref(c);
    lws_adopt_socket_vhost_readbuf(r->vhost, fd, head.data, head.len);
    if (r->adopting == c) { /* it never got so far as to have a wire; the socket is closed */
        r->adopting = NULL;
        let_go(c);
    }
    client_unref(c);
}

static void adopt(struct relay *r, struct adoption *a)
{
    if (r->hub.is_draining || r->hub.client_count >= r->hub.settings->ws_max_total + OVER_LIMIT) {
        shut(a->fd);
        return;
    }
    struct client *c = client_new(&r->hub);
    atomic_fetch_add(&r->client_count, 1);
    enum status s = ws_head_parse(&c->head_scope, a->head, a->len, &c->head);
    if (s != STATUS_OK) {
        answer_http(a->fd, s, c->head_scope.problem_text);
        let_go(c);
        return;
    }
    c->fd = a->fd;
    c->kind = c->head.kind;
    c->is_flat = c->head.is_flat;
    memcpy(c->target, c->head.target, strnlen(c->head.target, sizeof c->target - 1));
    c->refusal = refusal_of(r, &c->head);
    text_append(&c->early, a->head + c->head.head_len, a->len - c->head.head_len);
    client_begin(c);
}

static struct adoption *take_adoptions(struct relay *r)
{
    pthread_mutex_lock(&r->lock);
    struct adoption *list = r->adoptions;
    r->adoptions = NULL;
    r->last_adoption = &r->adoptions;
    pthread_mutex_unlock(&r->lock);
    return list;
}

void relay_adopt(struct relay *r, int fd, const char *head, size_t head_len, const char *client_address)
{
    log_debug("websocket_adopted", log_text("client", client_address));
    struct adoption *a = must_malloc(sizeof *a + head_len);
    *a = (struct adoption){.fd = fd, .len = head_len};
    memcpy(a->head, head, head_len);
    pthread_mutex_lock(&r->lock);
    *r->last_adoption = a;
    r->last_adoption = &a->next;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(&r->wake);
}

/* ---- the loop ---- */

static void on_wake(uv_async_t *wake)
{
    struct relay *r = wake->data;
    for (struct adoption *a = take_adoptions(r), *next; a; a = next) {
        next = a->next;
        adopt(r, a);
        free(a);
    }
    pthread_mutex_lock(&r->lock);
    int spread_ms = r->drain_spread_ms;
    bool should_stop = r->should_stop;
    pthread_mutex_unlock(&r->lock);
    if (spread_ms >= 0 && !r->hub.is_draining)
        hub_drain(&r->hub, spread_ms);
    if (should_stop)
        uv_stop(&r->loop);
}

static void close_rest(struct relay *r)
{
    for (struct client *c = r->hub.clients; c; c = c->next) {
        if (c->wire)
            lws_set_timeout(c->wire, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
    }
}

/* libwebsockets on a loop of ours is destroyed in two steps, with the loop running between them. */
static void *run(void *context)
{
    struct relay *r = context;
    uv_run(&r->loop, UV_RUN_DEFAULT);
    r->hub.is_draining = true;
    close_rest(r);
    int64_t until = clock_monotonic_ms() + LEAVE_GRACE_MS;
    while (r->hub.clients && clock_monotonic_ms() < until) /* the tick of the hub's timer ends each turn */
        uv_run(&r->loop, UV_RUN_ONCE);
    lws_context_destroy(r->context);
    hub_stop(&r->hub);
    uv_close((uv_handle_t *)&r->wake, NULL);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    lws_context_destroy(r->context);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void note_library(int level, const char *line)
{
    (void)level;
    log_debug("libwebsockets", log_text("line", line));
}

/* One descriptor a connection, and libwebsockets sizes its tables by the limit. */
static void raise_file_limit(const struct settings *s)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    rlim_t wanted = (rlim_t)s->ws_max_total + FILES_BESIDE_SOCKETS;
    if (limit.rlim_cur > wanted)
        wanted = limit.rlim_cur;
    if (wanted > limit.rlim_max)
        wanted = limit.rlim_max;
    if (wanted > MOST_FILES)
        wanted = MOST_FILES;
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warning("file_limit", log_text("problem", strerror(errno)));
}

static enum status create_context(struct scope *sc, struct relay *r)
{
    void *loops[] = {&r->loop};
    r->protocols[0] = (struct lws_protocols){.name = "opstream", .callback = on_event, .rx_buffer_size = RECEIVE_BYTES};
    r->info = (struct lws_context_creation_info){
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = r->protocols,
        .options = LWS_SERVER_OPTION_LIBUV,
        .foreign_loops = loops,
        .retry_and_idle_policy = &r->no_timers,
        .max_http_header_data = HEAD_BYTES,
        .pt_serv_buf_size = HANDSHAKE_BYTES,
        .user = r,
    };
    lws_set_log_level(LLL_ERR | LLL_WARN, note_library);
    r->context = lws_create_context(&r->info);
    if (!r->context)
        return fail(sc, STATUS_INTERNAL, "libwebsockets does not start; is libwebsockets-evlib-uv installed?");
    r->vhost = lws_get_vhost_by_name(r->context, "default");
    return r->vhost ? STATUS_OK : fail(sc, STATUS_INTERNAL, "libwebsockets has no default host");
}

static enum status start_loop(struct scope *sc, struct relay *r, struct api *api)
{
    r->wake.data = r;
    if (uv_async_init(&r->loop, &r->wake, on_wake) != 0)
        return fail(sc, STATUS_INTERNAL, "the relay's loop cannot be woken");
    enum status s = create_context(sc, r);
    if (s == STATUS_OK)
        s = hub_init(sc, &r->hub, &r->loop, api);
    if (s == STATUS_OK && pthread_create(&r->thread, NULL, run, r) != 0)
        s = fail(sc, STATUS_INTERNAL, "the relay's thread cannot be started");
    r->is_running = s == STATUS_OK;
    return s;
}

enum status relay_start(struct scope *sc, struct api *api, struct relay **out)
{
    raise_file_limit(api->settings);
    struct relay *r = must_calloc(1, sizeof *r);
    r->last_adoption = &r->adoptions;
    r->drain_spread_ms = -1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->is_empty, &attr);
    pthread_condattr_destroy(&attr);
    if (uv_loop_init(&r->loop) != 0) {
        free(r);
        return fail(sc, STATUS_INTERNAL, "no event loop for the relay");
    }
    enum status s = start_loop(sc, r, api);
    if (s == STATUS_OK)
        *out = r;
    return s; /* a start that fails ends the process: what it left is not taken apart */
}

const char *relay_trouble(const struct relay *r)
{
    return r->hub.is_subscribed ? NULL : "the relay's Redis subscription is away";
}

int relay_connections(const struct relay *r)
{
    return r->client_count;
}

void relay_drain(struct relay *r, int spread_ms)
{
    const struct timespec until = clock_in_ms(spread_ms + DRAIN_GRACE_MS);
    pthread_mutex_lock(&r->lock);
    r->drain_spread_ms = spread_ms;
    uv_async_send(&r->wake);
    while (r->client_count > 0 && pthread_cond_timedwait(&r->is_empty, &r->lock, &until) == 0)
        continue;
    pthread_mutex_unlock(&r->lock);
}

void relay_free(struct relay *r)
{
    if (!r)
        return;
    if (r->is_running) {
        pthread_mutex_lock(&r->lock);
        r->should_stop = true;
        pthread_mutex_unlock(&r->lock);
        uv_async_send(&r->wake);
        pthread_join(r->thread, NULL);
    }
    for (struct adoption *a = r->adoptions, *next; a; a = next) {
        next = a->next;
        shut(a->fd);
        free(a);
    }
    hub_done(&r->hub);
    uv_loop_close(&r->loop);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->is_empty);
    free(r);
}
