/* The wire: libwebsockets on the relay's loop. No other file includes it.
 *
 * libwebsockets does the handshake, reads frames, answers pings and closes. What is sent is framed by frame.c and given
 * to lws_write() as raw bytes (LWS_WRITE_HTTP), so that one buffer serves all connections and many frames go in one
 * write; parts that the socket does not take are kept, in order, by libwebsockets, so its own control frames never land
 * inside one of ours. */
#include "api/relay/lane.h"

#include "api/relay/deflate.h"
#include "api/relay/kernel.h"
#include "api/relay/stream.h"
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
    OVER_LIMIT = 256,           /* connections that are told of the limit; more are cut */
    RSV1 = 0x40,
    LEAVE_GRACE_MS = 200,
};

struct adoption {
    struct adoption *next;
    int fd;
    const char *refusal;
    size_t len;
    char head[];
};

struct lane {
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
    struct adoption *adoptions, **last_adoption;
    int drain_spread_ms; /* -1 = no drain asked for */
    bool should_stop;
    _Atomic int client_count; /* those that wait to be adopted included */
};

/* ---- what client.c asks for ---- */

/* Once libwebsockets has a reason to close, its close frame is the last that may be sent. */
static bool socket_is_busy(const struct client *c)
{
    return lws_partial_buffered(c->wire) || lws_get_close_length(c->wire) > 0;
}

static bool socket_write(struct client *c, const unsigned char *bytes, size_t len)
{
    return lws_write(c->wire, (unsigned char *)bytes, len, LWS_WRITE_HTTP) >= 0;
}

static void socket_want_write(struct client *c)
{
    lws_callback_on_writable(c->wire);
}

/* libwebsockets looks at its timers when something happens on one of its sockets; on a quiet evening that may be half a
 * minute away. */
static void cut_soon(struct lws *wsi)
{
    lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
    lws_cancel_service(lws_get_context(wsi));
}

static void socket_cut(struct client *c, bool is_hard)
{
    if (is_hard) {
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(lws_get_socket_fd(c->wire), SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    }
    cut_soon(c->wire);
}

static int64_t socket_taken(const struct client *c)
{
    return kernel_taken(lws_get_socket_fd(c->wire));
}

static int64_t socket_received(const struct client *c)
{
    return kernel_received(lws_get_socket_fd(c->wire));
}

static bool socket_is_unheard(const struct client *c, int64_t for_ms)
{
    return kernel_is_unheard(lws_get_socket_fd(c->wire), for_ms);
}

/* ---- what libwebsockets tells ---- */

/* The 101 is being written. */
static int add_echo(const struct client *c, struct lws_process_html_args *args)
{
    static const char name[] = "sec-websocket-protocol: ";
    if (!c->arrival->head.echo)
        return 0;
    size_t needed = sizeof name + strlen(c->arrival->head.echo) + 2;
    if (args->max_len < 0 || (size_t)args->max_len < needed + 4)
        return 1;
    args->p += lws_snprintf(args->p, (size_t)args->max_len, "%s%s\r\n", name, c->arrival->head.echo);
    return 0;
}

/* Only the first frame of a message may say that it is compressed. */
static void receive(struct lws *wsi, struct client *c, const char *bytes, size_t len)
{
    bool is_first = lws_is_first_fragment(wsi), is_packed = lws_get_reserved_bits(wsi) & RSV1;
    bool is_frame_whole = lws_remaining_packet_payload(wsi) == 0;
    if (is_first)
        c->is_packed = is_packed;
    else if (is_packed && !c->is_in_frame)
        client_close(c, CLOSE_PROTOCOL, "a frame that goes on says that it is compressed");
    c->is_in_frame = !is_frame_whole;
    client_receive(c, bytes, len, is_first, is_frame_whole && lws_is_final_fragment(wsi), lws_frame_is_binary(wsi));
}

/* Its close frame is answered by us: libwebsockets would give back one of one byte, unknown codes and a reason that is
 * no text. */
static int answer_close(struct client *c, const unsigned char *payload, size_t len)
{
    client_flush(c); /* what was said before; with both closing at once that is our own close frame */
    if (c->state == CLIENT_CLOSING)
        return -1; /* the answer to our own is not answered again */
    int code = len >= 2 ? payload[0] << 8 | payload[1] : 0;
    bool is_known = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
    if (len > 0 && !is_known)
        code = CLOSE_PROTOCOL;
    else if (len > 2 && !utf8_is_valid((const char *)payload + 2, len - 2))
        code = CLOSE_BAD_TEXT;
    struct frame *f = frame_close(code, "");
    if (!lws_get_close_length(c->wire))
        socket_write(c, f->bytes, f->len);
    frame_unref(f);
    return -1;
}

/* RFC 7692 leaves a control frame no such bit. */
static int take_pong(struct lws *wsi, struct client *c)
{
    if (lws_get_reserved_bits(wsi) & RSV1)
        client_close(c, CLOSE_PROTOCOL, "a pong is never compressed");
    client_ponged(c);
    return 0;
}

/* permessage-deflate as libwebsockets sees it: it lets RSV1 pass and says yes to what extension.c has chosen. What the
 * payloads mean is deflate.c's: libwebsockets' own extension keeps two states of zlib for each connection, loses pongs,
 * and cannot share what it has compressed. */
static int on_extension(struct lws_context *context, const struct lws_extension *extension, struct lws *wsi,
                        enum lws_extension_callback_reasons reason, void *user, void *in, size_t len)
{
    (void)context, (void)extension, (void)wsi, (void)user, (void)len;
    static const struct lws_ext_options answers[] = {
        {"server_no_context_takeover", EXTARG_NONE},
        {"client_no_context_takeover", EXTARG_NONE},
        {"server_max_window_bits=" DEFLATE_WINDOW_TEXT, EXTARG_NONE},
        {NULL, 0},
    };
    if (reason == LWS_EXT_CB_CONSTRUCT)
        *(const struct lws_ext_options **)in = answers;
    return 0;
}

static const struct lws_extension extensions[] = {{"permessage-deflate", on_extension, NULL}, {NULL, NULL, NULL}};

static struct lane *lane_of(const struct client *c)
{
    return (struct lane *)((char *)c->hub - offsetof(struct lane, hub));
}

static void count_down(struct lane *r)
{
    struct shared *shared = r->hub.shared;
    atomic_fetch_sub(&r->client_count, 1);
    if (atomic_fetch_sub(&shared->client_count, 1) > 1)
        return;
    pthread_mutex_lock(&shared->lock);
    pthread_cond_broadcast(&shared->is_empty);
    pthread_mutex_unlock(&shared->lock);
}

static void let_go(struct client *c)
{
    struct lane *r = lane_of(c);
    client_gone(c);
    count_down(r);
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *unused, void *in, size_t len)
{
    (void)unused;
    struct client *c = wsi ? lws_get_opaque_user_data(wsi) : NULL;
    if (reason == LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED) {
        struct lane *r = lws_context_user(lws_get_context(wsi));
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
        return take_pong(wsi, c);
    case LWS_CALLBACK_SERVER_WRITEABLE:
        client_writeable(c);
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return answer_close(c, in, len);
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
static const char *refusal_of(const struct lane *r, const struct ws_head *head, const char **out_why)
{
    const struct settings *s = r->hub.settings;
    *out_why = "unknown_endpoint";
    if (head->kind == WS_UNKNOWN)
        return "there is no such WebSocket endpoint";
    *out_why = "origin";
    if (!ws_origin_is_allowed(s->cors_origins, head->origin, head->host))
        return "this origin is not allowed";
    *out_why = "instance_limit";
    if (r->hub.shared->client_count > s->ws_max_total)
        return "too many connections to this server";
    *out_why = NULL;
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

static void socket_drop(struct client *c)
{
    shut(c->fd);
    c->fd = -1;
    let_go(c);
}

static void socket_open(struct client *c)
{
    struct lane *r = lane_of(c);
    int fd = c->fd;
    scoped_text head = {0};
    ws_head_rewrite(&head, &c->arrival->head);
    text_append(&head, text_str(&c->arrival->early), c->arrival->early.len);
    text_free(&c->arrival->early);
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

static const struct wire_ops websocket_wire = {
    .open = socket_open,
    .drop = socket_drop,
    .is_busy = socket_is_busy,
    .write = socket_write,
    .want_write = socket_want_write,
    .cut = socket_cut,
    .received = socket_received,
    .taken = socket_taken,
    .is_unheard = socket_is_unheard,
    .goodbye = frame_close,
};

static void adopt(struct lane *r, struct adoption *a)
{
    if (r->hub.is_draining || r->hub.shared->client_count > r->hub.settings->ws_max_total + OVER_LIMIT) {
        shut(a->fd);
        count_down(r);
        return;
    }
    struct client *c = client_new(&r->hub, &websocket_wire);
    enum status s = ws_head_parse(&c->arrival->scope, a->head, a->len, &c->arrival->head);
    if (s != STATUS_OK) {
        answer_http(a->fd, s, c->arrival->scope.problem_text);
        let_go(c);
        return;
    }
    c->fd = a->fd;
    c->kind = c->arrival->head.kind;
    if (!r->hub.settings->ws_deflate)
        c->arrival->head.extension = NULL;
    if (c->arrival->head.extension)
        c->format = c->arrival->head.is_flat ? FRAME_FLAT_DEFLATED : FRAME_WS_DEFLATED;
    else
        c->format = c->arrival->head.is_flat ? FRAME_FLAT : FRAME_WS;
    memcpy(c->target, c->arrival->head.target, strnlen(c->arrival->head.target, sizeof c->target - 1));
    c->refusal = refusal_of(r, &c->arrival->head, &c->answer.why);
    if (a->refusal) {
        c->refusal = a->refusal;
        c->answer.why = "address_rate";
    }
    text_append(&c->arrival->early, a->head + c->arrival->head.head_len, a->len - c->arrival->head.head_len);
    client_begin(c);
}

static struct adoption *take_adoptions(struct lane *r)
{
    pthread_mutex_lock(&r->lock);
    struct adoption *list = r->adoptions;
    r->adoptions = NULL;
    r->last_adoption = &r->adoptions;
    pthread_mutex_unlock(&r->lock);
    return list;
}

void lane_adopt(struct lane *r, int fd, const char *head, size_t head_len, const char *refusal)
{
    atomic_fetch_add(&r->client_count, 1);
    atomic_fetch_add(&r->hub.shared->client_count, 1);
    struct adoption *a = must_malloc(sizeof *a + head_len);
    *a = (struct adoption){.fd = fd, .refusal = refusal, .len = head_len};
    memcpy(a->head, head, head_len);
    pthread_mutex_lock(&r->lock);
    *r->last_adoption = a;
    r->last_adoption = &a->next;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(&r->wake);
}

void lane_attach(struct lane *r, struct stream *stream, const struct stream_http *http)
{
    atomic_fetch_add(&r->client_count, 1);
    atomic_fetch_add(&r->hub.shared->client_count, 1);
    stream_attach(r->hub.streams, stream, http);
}

/* ---- the loop ---- */

static void on_wake(uv_async_t *wake)
{
    struct lane *r = wake->data;
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

static void close_rest(struct lane *r)
{
    for (struct client *c = r->hub.clients; c; c = c->next) {
        if (c->wire)
            wire_cut(c, false);
    }
}

/* libwebsockets on a loop of ours is destroyed in two steps, with the loop running between them. */
static void *run(void *context)
{
    struct lane *r = context;
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

static enum status create_context(struct scope *sc, struct lane *r)
{
    void *loops[] = {&r->loop};
    r->protocols[0] = (struct lws_protocols){
        .name = "opstream",
        .callback = on_event,
        .rx_buffer_size = RECEIVE_BYTES,
        .tx_packet_size = WRITE_BYTES, /* else one send takes no more than rx_buffer_size, and the rest is copied */
    };
    r->info = (struct lws_context_creation_info){
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = r->protocols,
        .extensions = extensions,
        .options = LWS_SERVER_OPTION_LIBUV,
        .foreign_loops = loops,
        .retry_and_idle_policy = &r->no_timers,
        .max_http_header_data = HEAD_BYTES,
        .pt_serv_buf_size = HANDSHAKE_BYTES,
        .user = r,
    };
    lws_set_log_level(LLL_ERR | LLL_WARN, note_library);
    r->context = lws_create_context(&r->info);
    lws_set_log_level(0, NULL); /* it makes its lines in one buffer for all threads, and clients can provoke them */
    if (!r->context)
        return fail(sc, STATUS_INTERNAL, "libwebsockets does not start; is libwebsockets-evlib-uv installed?");
    r->vhost = lws_get_vhost_by_name(r->context, "default");
    return r->vhost ? STATUS_OK : fail(sc, STATUS_INTERNAL, "libwebsockets has no default host");
}

enum status lane_new(struct scope *sc, struct api *api, struct shared *shared, int number, struct lane **out)
{
    struct lane *r = must_calloc(1, sizeof *r);
    *out = r;
    r->hub = (struct hub){.api = api, .settings = api->settings, .loop = &r->loop, .shared = shared, .lane = number};
    r->last_adoption = &r->adoptions;
    r->drain_spread_ms = -1;
    r->wake.data = r;
    pthread_mutex_init(&r->lock, NULL);
    if (uv_loop_init(&r->loop) != 0)
        return fail(sc, STATUS_INTERNAL, "no event loop for the relay");
    if (uv_async_init(&r->loop, &r->wake, on_wake) != 0)
        return fail(sc, STATUS_INTERNAL, "the relay's loop cannot be woken");
    return create_context(sc, r);
}

uv_loop_t *lane_loop(struct lane *r)
{
    return &r->loop;
}

enum status lane_prepare(struct scope *sc, struct lane *r)
{
    r->hub.let_go = let_go;
    return hub_init(sc, &r->hub);
}

enum status lane_start(struct scope *sc, struct lane *r)
{
    r->is_running = pthread_create(&r->thread, NULL, run, r) == 0;
    return r->is_running ? STATUS_OK : fail(sc, STATUS_INTERNAL, "the relay's thread cannot be started");
}

int lane_connections(const struct lane *r)
{
    return r->client_count;
}

void lane_drain(struct lane *r, int spread_ms)
{
    pthread_mutex_lock(&r->lock);
    r->drain_spread_ms = spread_ms;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(&r->wake);
}

void lane_stop(struct lane *r)
{
    if (!r->is_running)
        return;
    pthread_mutex_lock(&r->lock);
    r->should_stop = true;
    pthread_mutex_unlock(&r->lock);
    uv_async_send(&r->wake);
    pthread_join(r->thread, NULL);
}

void lane_free(struct lane *r)
{
    for (struct adoption *a = r->adoptions, *next; a; a = next) {
        next = a->next;
        shut(a->fd);
        free(a);
    }
    hub_done(&r->hub);
    uv_loop_close(&r->loop);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
