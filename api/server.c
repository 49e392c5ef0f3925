#include "api/server.h"

#include "api/address.h"
#include "api/dispatch.h"
#include "api/router.h"
#include "api/together.h"
#include "common/clock.h"
#include "common/listen.h"
#include "common/log.h"
#include "common/message.h"
#include "common/metrics.h"

#include <errno.h>
#include <math.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <zlib.h>

enum {
    HANDLER_STACK_BYTES = 512 << 10,
    LOOP_STACK_BYTES = 256 << 10,
    CONNECTION_MEMORY_BYTES = 32 << 10, /* head, header fields and the head of the answer */
    MAX_CONNECTIONS = 16384,
    IDLE_SECONDS = 75,       /* longer than the proxies in front keep theirs */
    BODY_SECONDS = 30,       /* from the request line to the last byte of the body */
    REQUEST_SECONDS = 30,    /* a handler gives up after this */
    WAIT_SECONDS = 10,       /* in the queue: afterwards nobody waits for the answer any more */
    BODIES_BYTES = 64 << 20, /* of all bodies together that are kept in memory, unless a few large ones take more */
    LARGE_BODIES = 4,
    SWALLOWED_BYTES =
        16 << 20, /* of a body that is refused: read to its end, so that the client gets to see the answer */
    GZIP_FROM_BYTES = 1024,
    DATABASE_TIMEOUT_MS = 5000,
    REDIS_TIMEOUT_MS = 100,
    METRICS_STACK_BYTES = 256 << 10,
    GROUPS_AT_ONCE = 2,  /* while two commit, others gather */
    GATHER_MOST_MS = 50, /* unless they are held up: then further threads help */
};

struct server {
    struct api *api;
    struct MHD_Daemon *daemon;
    struct scope sc; /* owns what was parsed from the settings */
    const struct proxies *trusted;
    char **origins;
    pthread_t *threads;
    int thread_count;
    _Atomic int in_flight;
    _Atomic int64_t body_bytes; /* kept of all requests */
    pthread_mutex_t lock;       /* guards the queue */
    pthread_cond_t has_work;
    struct queue {
        struct server_connection *first, **last;
    } alone, together;
    int groups; /* running */
    int64_t waiting;
    bool is_stopping;
};

/* One request, from its request line to the end of its answer. */
struct server_connection {
    struct server *server;
    struct MHD_Connection *mhd;
    struct scope sc;
    struct request request;
    struct text body;
    char *target;       /* as it stands in the request line */
    const char *origin; /* of a browser that may call us; NULL else */
    bool accepts_gzip;
    bool has_begun;
    bool is_answered;    /* `response` is to be sent */
    enum status refused; /* the answer once the body was swallowed */
    size_t received_bytes;
    int64_t started_us;
    int64_t queued_ms;
    bool may_gather;
    unsigned http;
    struct MHD_Response *response;
    struct server_connection *next;
};

const char *server_header(struct server_connection *c, const char *name)
{
    return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name);
}

/* ---- answers ---- */

static bool accepts(const char *header, const char *coding)
{
    size_t len = strlen(coding);
    for (const char *p = header; p && (p = strcasestr(p, coding)); p += len) {
        const char *rest = p + len + strspn(p + len, " \t");
        bool is_whole = (p == header || strchr(", \t", p[-1])) && (*rest == '\0' || *rest == ',' || *rest == ';');
        const char *q = is_whole && *rest == ';' ? strstr(rest, "q=") : NULL;
        bool is_refused = q && q < rest + strcspn(rest, ",") && strtod(q + 2, NULL) <= 0;
        if (is_whole)
            return !is_refused;
    }
    return false;
}

/* Replaces the body by its gzip form; leaves it alone when that is not possible or not smaller. */
static bool compress_body(struct text *body)
{
    z_stream z = {0};
    if (deflateInit2(&z, 3, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    size_t most = deflateBound(&z, body->len);
    char *out = malloc(most);
    z.next_in = (Bytef *)body->data;
    z.avail_in = (uInt)body->len;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)most;
    bool is_done = out && deflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out < body->len;
    size_t len = z.total_out;
    deflateEnd(&z);
    if (!is_done) {
        free(out);
        return false;
    }
    text_free(body);
    *body = (struct text){.data = out, .len = len, .capacity = most};
    return true;
}

static bool has_header(const struct reply *reply, const char *name)
{
    for (int i = 0; i < reply->header_count; i++) {
        if (strcasecmp(reply->headers[i].name, name) == 0)
            return true;
    }
    return false;
}

static void add_common_headers(struct server_connection *c, struct MHD_Response *response)
{
    static const char *const common[][2] = {
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "strict-origin-when-cross-origin"},
        {"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
        {"Cache-Control", "no-store"},
        {"Vary", "Origin, Accept-Encoding"},
    };
    const struct reply *reply = &c->request.reply;
    for (size_t i = 0; i < array_len(common); i++) {
        if (!has_header(reply, common[i][0]))
            MHD_add_response_header(response, common[i][0], common[i][1]);
    }
    MHD_add_response_header(response, "X-Correlation-ID", c->sc.trace_id);
    if (c->origin) {
        MHD_add_response_header(response, "Access-Control-Allow-Origin", c->origin);
        MHD_add_response_header(response, "Access-Control-Allow-Credentials", "true");
        MHD_add_response_header(response, "Access-Control-Expose-Headers",
                                "X-Correlation-ID, X-Operation-ID, X-Point-Count, Retry-After, X-RateLimit-Limit, "
                                "X-RateLimit-Remaining, X-RateLimit-Reset");
    }
    for (int i = 0; i < reply->header_count; i++)
        MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    if (c->server->api->is_draining)
        MHD_add_response_header(response, "Connection", "close");
}

/* Makes c->response out of the reply, which is used up. */
static void make_response(struct server_connection *c)
{
    struct reply *reply = &c->request.reply;
    const char *type = reply->content_type ? reply->content_type : "application/json";
    bool has_body = reply->file_fd >= 0 || reply->body.len > 0;
    bool is_packed = false;
    if (reply->file_fd >= 0) {
        c->response = MHD_create_response_from_fd64((uint64_t)reply->file_bytes, reply->file_fd);
        if (!c->response)
            close(reply->file_fd);
        reply->file_fd = -1;
    } else {
        bool is_text = strncmp(type, "application/json", 16) == 0 || strncmp(type, "text/", 5) == 0;
        if (c->accepts_gzip && is_text && reply->body.len > GZIP_FROM_BYTES && !has_header(reply, "Content-Encoding"))
            is_packed = compress_body(&reply->body);
        size_t len = reply->body.len;
        char *bytes = len ? text_take(&reply->body) : NULL;
        c->response = MHD_create_response_from_buffer(len, bytes ? bytes : "",
                                                      bytes ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
        if (!c->response)
            free(bytes);
    }
    text_free(&reply->body);
    text_free(&reply->invalid);
    c->http = (unsigned)reply->http;
    c->is_answered = true;
    if (!c->response)
        return;
    if (has_body)
        MHD_add_response_header(c->response, "Content-Type", type);
    if (is_packed)
        MHD_add_response_header(c->response, "Content-Encoding", "gzip");
    add_common_headers(c, c->response);
}

static void log_access(const struct server_connection *c)
{
    const struct request *r = &c->request;
    double seconds = (double)(clock_monotonic_us() - c->started_us) / 1e6;
    char status[12];
    snprintf(status, sizeof status, "%u", c->http);
    const char *label = r->route ? r->route->path : "unmatched";
    metrics_add(METRIC_HTTP_REQUESTS, label, status, 1);
    metrics_observe(METRIC_HTTP_SECONDS, label, NULL, seconds);
    if (r->route && r->route->access == ACCESS_PROBE && c->http < 400)
        log_debug("request", log_text("method", r->method), log_text("path", r->path), log_int("status", c->http));
    else
        log_info("request", log_text("correlation_id", c->sc.trace_id), log_text("method", r->method),
                 log_text("path", r->path), log_text("route", label), log_int("status", c->http),
                 log_real("ms", round(seconds * 1e6) / 1000), log_text("client", r->client_address),
                 log_int("user_id", r->user.id));
}

static enum MHD_Result send_response(struct server_connection *c)
{
    log_access(c);
    if (!c->response)
        return MHD_NO; /* no memory: the connection is closed */
    enum MHD_Result queued = MHD_queue_response(c->mhd, c->http, c->response);
    MHD_destroy_response(c->response);
    c->response = NULL;
    return queued;
}

static enum MHD_Result send_error(struct server_connection *c, enum status s)
{
    reply_error(&c->request, s);
    make_response(c);
    return send_response(c);
}

/* ---- the queue and its threads ---- */

static void put(struct queue *q, struct server_connection *c)
{
    c->next = NULL;
    *q->last = c;
    q->last = &c->next;
}

static struct server_connection *take(struct queue *q)
{
    struct server_connection *c = q->first;
    if (c)
        q->first = c->next;
    if (!q->first)
        q->last = &q->first;
    return c;
}

/* Under the lock: whether a thread may take those that gather. */
static bool is_gathered(const struct server *server)
{
    const struct server_connection *c = server->together.first;
    return c && (server->groups < GROUPS_AT_ONCE || server->is_stopping ||
                 clock_monotonic_ms() - c->queued_ms > GATHER_MOST_MS);
}

static bool enqueue(struct server *server, struct server_connection *c)
{
    pthread_mutex_lock(&server->lock);
    bool has_room = server->waiting < server->api->settings->api_queue && !server->is_stopping;
    if (has_room) {
        put(c->may_gather ? &server->together : &server->alone, c);
        server->waiting++;
        if (!c->may_gather || is_gathered(server))
            pthread_cond_signal(&server->has_work);
    }
    pthread_mutex_unlock(&server->lock);
    return has_room;
}

/* One that was in the queue already and is to be run by itself. */
static void enqueue_again(struct server *server, struct server_connection *c)
{
    c->may_gather = false;
    pthread_mutex_lock(&server->lock);
    put(&server->alone, c);
    server->waiting++;
    pthread_cond_signal(&server->has_work);
    pthread_mutex_unlock(&server->lock);
}

/* One request, or several that gathered; 0 when the server stops and the queue is empty. */
static size_t dequeue(struct server *server, struct server_connection *out[TOGETHER_MOST])
{
    size_t count = 0;
    pthread_mutex_lock(&server->lock);
    while (!server->alone.first && !is_gathered(server) && !server->is_stopping)
        pthread_cond_wait(&server->has_work, &server->lock);
    if (is_gathered(server)) {
        while (count < TOGETHER_MOST && server->together.first)
            out[count++] = take(&server->together);
        server->groups++;
    } else if (server->alone.first) {
        out[count++] = take(&server->alone);
    }
    server->waiting -= (int64_t)count;
    pthread_mutex_unlock(&server->lock);
    return count;
}

static void end_group(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    server->groups--;
    pthread_mutex_unlock(&server->lock);
}

struct handler {
    struct db *db;
    struct redis *queue, *events;
};

static struct handler handler_open(const struct settings *settings)
{
    struct redis_options redis = {
        .url = settings->redis_url, .prefix = settings->redis_prefix, .timeout_ms = REDIS_TIMEOUT_MS};
    struct handler h = {.db = db_new(&(struct db_options){.url = settings->database_url,
                                                          .application_name = "opstream-api",
                                                          .statement_timeout_ms = DATABASE_TIMEOUT_MS})};
    redis.database = (int)settings->redis_queue_db;
    h.queue = redis_new(&redis);
    redis.database = (int)settings->redis_stream_db;
    h.events = redis_new(&redis);
    return h;
}

static void handler_close(struct handler *h)
{
    db_free(h->db);
    redis_free(h->queue);
    redis_free(h->events);
}

static void answer(struct server_connection *c)
{
    make_response(c);
    MHD_resume_connection(c->mhd); /* from here on it belongs to the library's thread */
}

/* False: it has been answered. */
static bool begin_run(struct server *server, struct handler *h, struct server_connection *c)
{
    struct request *r = &c->request;
    int64_t now = clock_monotonic_ms();
    r->db = h->db;
    r->queue = h->queue;
    r->events = h->events;
    r->sc->deadline_ms = now + REQUEST_SECONDS * 1000;
    if (now - c->queued_ms <= WAIT_SECONDS * 1000 && !server->is_stopping)
        return true;
    reply_error(r, fail(r->sc, STATUS_BUSY, "it waited too long for a handler thread"));
    answer(c);
    return false;
}

static void run_alone(struct server *server, struct handler *h, struct server_connection *c)
{
    if (!begin_run(server, h, c))
        return;
    dispatch(&c->request);
    answer(c);
}

static void run_together(struct server *server, struct handler *h, struct server_connection **all, size_t count)
{
    struct request *list[TOGETHER_MOST];
    bool is_done[TOGETHER_MOST] = {false};
    struct together t;
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (!begin_run(server, h, all[i]))
            continue;
        list[left] = &all[i]->request;
        all[left++] = all[i];
    }
    if (left == 0)
        return;
    together_run(&t, list, left, is_done);
    for (size_t i = 0; i < left; i++) {
        if (is_done[i])
            answer(all[i]);
        else
            enqueue_again(server, all[i]);
    }
    together_push(&t, h->queue);
}

static void *handle_requests(void *cls)
{
    struct server *server = cls;
    struct handler h = handler_open(server->api->settings);
    struct server_connection *taken[TOGETHER_MOST];
    for (size_t count; (count = dequeue(server, taken)) > 0;) {
        if (!taken[0]->may_gather) {
            run_alone(server, &h, taken[0]);
            continue;
        }
        run_together(server, &h, taken, count);
        end_group(server);
    }
    handler_close(&h);
    return NULL;
}

/* ---- requests coming in ---- */

static bool is_allowed_origin(const struct server *server, const char *origin)
{
    for (char **o = server->origins; origin && *o; o++) {
        if (strcmp(*o, origin) == 0)
            return true;
    }
    return false;
}

static enum MHD_Result join_forwarded(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    (void)kind;
    struct text *joined = cls;
    if (value && strcasecmp(key, "X-Forwarded-For") == 0)
        text_printf(joined, "%s%s", joined->len ? "," : "", value);
    return MHD_YES;
}

/* Every field of that name counts: a proxy may add one of its own behind the one that a client made up. */
static const char *find_client(struct server_connection *c)
{
    char peer[64];
    scoped_text forwarded = {.max_len = 4096};
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    address_text(info ? info->client_addr : NULL, peer);
    MHD_get_connection_values(c->mhd, MHD_HEADER_KIND, join_forwarded, &forwarded);
    return address_of_client(&c->sc.arena, c->server->trusted, peer, forwarded.len ? forwarded.data : NULL);
}

/* "/path?query" out of a request target, which may be an absolute URL. */
static void split_target(struct server_connection *c)
{
    char *path = c->target;
    if (*path != '/' && strstr(path, "://")) {
        path = strstr(path, "://") + 3;
        path += strcspn(path, "/?");
    }
    char *query = strchr(path, '?');
    if (query)
        *query++ = '\0';
    c->request.path = *path ? path : "/";
    c->request.query = query;
}

static void begin(struct server_connection *c, const char *method)
{
    struct request *r = &c->request;
    const char *wanted_id = server_header(c, "X-Correlation-ID");
    char id[37];
    if (wanted_id && uuid_is_valid(wanted_id))
        snprintf(id, sizeof id, "%s", wanted_id);
    else
        uuid_make(id);
    scope_init(&c->sc, id);
    r->sc = &c->sc;
    r->api = c->server->api;
    r->connection = c;
    r->reply.file_fd = -1;
    r->method = arena_strdup(&c->sc.arena, method);
    split_target(c);
    r->client_address = find_client(c);
    const char *origin = server_header(c, "Origin");
    c->origin = is_allowed_origin(c->server, origin) ? arena_strdup(&c->sc.arena, origin) : NULL;
    c->accepts_gzip = accepts(server_header(c, "Accept-Encoding"), "gzip");
    c->has_begun = true;
}

static bool is_websocket_path(const char *path)
{
    return strncmp(path, "/ws/", 4) == 0;
}

static enum status find_route(struct server_connection *c)
{
    struct request *r = &c->request;
    struct route_match match;
    if (is_websocket_path(r->path)) {
        reply_header(r, "Upgrade", "websocket");
        reply_header(r, "Connection", "close");
        return fail(&c->sc, STATUS_UPGRADE, "a WebSocket needs a connection of its own");
    }
    enum status s = router_find(&c->sc, r->method, r->path, &match);
    r->route = match.route;
    memcpy(r->params, match.params, sizeof r->params);
    if (strcmp(r->method, "OPTIONS") == 0 && match.allow) {
        scope_forgive(&c->sc);
        reply_header(r, "Allow", arena_printf(&c->sc.arena, "%s, OPTIONS", match.allow));
        return STATUS_OK;
    }
    if (s == STATUS_METHOD)
        reply_header(r, "Allow", arena_printf(&c->sc.arena, "%s, OPTIONS", match.allow));
    return s;
}

static int64_t announced_bytes(struct server_connection *c)
{
    const char *length = server_header(c, "Content-Length");
    return length ? strtoll(length, NULL, 10) : 0;
}

/* What is kept of a body counts against all of them; once it is refused nothing is kept. */
static void forget_body(struct server_connection *c)
{
    atomic_fetch_sub(&c->server->body_bytes, (int64_t)c->body.len);
    text_free(&c->body);
}

static int64_t most_of_bodies(const struct server *server)
{
    int64_t large = server->api->settings->max_body_bytes * LARGE_BODIES;
    return large > BODIES_BYTES ? large : BODIES_BYTES;
}

static void keep_body(struct server_connection *c, const char *bytes, size_t len)
{
    if (atomic_fetch_add(&c->server->body_bytes, (int64_t)len) + (int64_t)len > most_of_bodies(c->server))
        c->refused = fail(&c->sc, STATUS_BUSY, "too many large bodies at once");
    text_append(&c->body, bytes, len);
}

static enum status too_large(struct server_connection *c)
{
    return fail(&c->sc, STATUS_TOO_LARGE, "the body is larger than %lld bytes",
                (long long)c->server->api->settings->max_body_bytes);
}

/* The head is complete. */
static enum MHD_Result on_head(struct server_connection *c, const char *method)
{
    begin(c, method);
    c->refused = find_route(c);
    int64_t bytes = announced_bytes(c);
    bool has_body = bytes > 0 || server_header(c, "Transfer-Encoding");
    if (has_body)
        MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)BODY_SECONDS);
    if (bytes <= c->server->api->settings->max_body_bytes)
        return MHD_YES;
    c->refused = c->refused == STATUS_OK ? too_large(c) : c->refused;
    bool does_wait = server_header(c, "Expect") != NULL;
    return does_wait || bytes > SWALLOWED_BYTES ? send_error(c, c->refused) : MHD_YES;
}

static enum MHD_Result on_body(struct server_connection *c, const char *bytes, size_t len)
{
    c->received_bytes += len;
    bool is_late = clock_monotonic_us() - c->started_us > (int64_t)BODY_SECONDS * 1000000;
    if (is_late || c->received_bytes > SWALLOWED_BYTES)
        return MHD_NO;
    if (c->refused == STATUS_OK && c->received_bytes > (size_t)c->server->api->settings->max_body_bytes)
        c->refused = too_large(c);
    if (c->refused == STATUS_OK)
        keep_body(c, bytes, len);
    if (c->refused != STATUS_OK)
        forget_body(c);
    return MHD_YES;
}

/* A browser asks what it may send; the answer to another OPTIONS is the same without the CORS fields. */
static enum MHD_Result answer_options(struct server_connection *c)
{
    struct request *r = &c->request;
    reply_empty(r, 204);
    if (c->origin) {
        reply_header(r, "Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS, PATCH");
        reply_header(r, "Access-Control-Allow-Headers",
                     "Authorization, Content-Type, Accept, X-Correlation-ID, X-Requested-With, Idempotency-Key");
        reply_header(r, "Access-Control-Max-Age", "600");
    }
    make_response(c);
    return send_response(c);
}

/* The whole request is here. */
static enum MHD_Result on_complete(struct server_connection *c)
{
    struct request *r = &c->request;
    if (c->received_bytes > 0)
        MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)IDLE_SECONDS);
    if (c->refused != STATUS_OK)
        return send_error(c, c->refused);
    if (strcmp(r->method, "OPTIONS") == 0)
        return answer_options(c);
    r->body = text_str(&c->body);
    r->body_len = c->body.len;
    if (r->route->access == ACCESS_PROBE) {
        dispatch(r);
        make_response(c);
        return send_response(c);
    }
    c->queued_ms = clock_monotonic_ms();
    c->may_gather = together_may(r);
    MHD_suspend_connection(c->mhd);
    if (enqueue(c->server, c))
        return MHD_YES;
    reply_error(r, fail(&c->sc, STATUS_BUSY, "the queue of requests is full"));
    make_response(c);
    MHD_resume_connection(c->mhd);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **state)
{
    (void)cls;
    (void)url;
    (void)version;
    struct server_connection *c = *state;
    if (!c)
        return MHD_NO;
    c->mhd = connection;
    if (!c->has_begun)
        return on_head(c, method);
    if (*upload_len > 0) {
        size_t len = *upload_len;
        *upload_len = 0;
        return on_body(c, upload, len);
    }
    return c->is_answered ? send_response(c) : on_complete(c);
}

/* The request line is here: MHD gives what we return as *state to everything that follows. */
static void *on_request_line(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct server *server = cls;
    struct server_connection *c = must_calloc(1, sizeof *c);
    c->server = server;
    c->mhd = connection;
    c->target = must_strdup(target);
    c->started_us = clock_monotonic_us();
    atomic_fetch_add(&server->in_flight, 1);
    return c;
}

static void on_done(void *cls, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode code)
{
    struct server *server = cls;
    struct server_connection *c = *state;
    (void)connection;
    (void)code;
    if (!c)
        return;
    *state = NULL;
    if (c->response)
        MHD_destroy_response(c->response);
    forget_body(c);
    cJSON_Delete(c->request.parsed);
    text_free(&c->request.reply.body);
    text_free(&c->request.reply.invalid);
    if (c->has_begun)
        scope_done(&c->sc);
    free(c->target);
    free(c);
    atomic_fetch_sub(&server->in_flight, 1);
}

/* Paths are decoded by the router, segment by segment: here `%2F` and `/` would become the same. */
static size_t leave_escaped(void *cls, struct MHD_Connection *connection, char *s)
{
    (void)cls;
    (void)connection;
    return strlen(s);
}

static void on_library_message(void *cls, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void on_library_message(void *cls, const char *format, va_list args)
{
    (void)cls;
    char message[512];
    int n = vsnprintf(message, sizeof message, format, args);
    if (n > 0 && message[strlen(message) - 1] == '\n')
        message[strlen(message) - 1] = '\0';
    log_debug("microhttpd", log_text("message", message));
}

/* ---- start and end ---- */

static enum status start_threads(struct scope *sc, struct server *server)
{
    int wanted = (int)server->api->settings->api_threads;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, HANDLER_STACK_BYTES);
    server->threads = must_calloc((size_t)wanted, sizeof *server->threads);
    while (server->thread_count < wanted &&
           pthread_create(&server->threads[server->thread_count], &attributes, handle_requests, server) == 0)
        server->thread_count++;
    pthread_attr_destroy(&attributes);
    return server->thread_count == wanted ? STATUS_OK
                                          : fail(sc, STATUS_NO_SPACE, "cannot start %d handler threads", wanted);
}

static enum status start_daemon(struct scope *sc, struct server *server)
{
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, on_library_message, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_done, server, MHD_OPTION_URI_LOG_CALLBACK, on_request_line, server,
        MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_THREAD_STACK_SIZE, (size_t)LOOP_STACK_BYTES, MHD_OPTION_END);
    return server->daemon ? STATUS_OK
                          : fail(sc, STATUS_UNAVAILABLE, "cannot start the HTTP server: %s", strerror(errno));
}

enum status server_start(struct scope *sc, struct api *api, struct server **out)
{
    struct server *server = must_calloc(1, sizeof *server);
    server->api = api;
    server->alone.last = &server->alone.first;
    server->together.last = &server->together.first;
    scope_init(&server->sc, NULL);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->has_work, NULL);
    server->origins = settings_list(&server->sc.arena, api->settings->cors_origins, ',', NULL);
    enum status s = proxies_parse(&server->sc, api->settings->trusted_proxies, &server->trusted);
    if (s != STATUS_OK)
        s = fail(sc, s, "%s", server->sc.problem_text);
    if (s == STATUS_OK)
        s = start_threads(sc, server);
    if (s == STATUS_OK)
        s = start_daemon(sc, server);
    if (s != STATUS_OK) {
        server_free(server);
        return s;
    }
    *out = server;
    return STATUS_OK;
}

void server_adopt(struct server *server, int fd, const struct sockaddr *address, socklen_t address_len)
{
    /* The library closes the socket itself when it cannot take it. */
    if (MHD_add_connection(server->daemon, fd, address, address_len) != MHD_YES)
        log_warning("connection_refused", log_text("reason", "too many connections, or no memory"));
}

int server_in_flight(const struct server *server)
{
    return server->in_flight;
}

bool server_drain(const struct server *server, int timeout_ms)
{
    int64_t until = clock_monotonic_ms() + timeout_ms;
    while (server_in_flight(server) > 0 && clock_monotonic_ms() < until)
        usleep(5000);
    return server_in_flight(server) == 0;
}

void server_free(struct server *server)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->lock);
    server->is_stopping = true;
    pthread_cond_broadcast(&server->has_work);
    pthread_mutex_unlock(&server->lock);
    for (int i = 0; i < server->thread_count; i++)
        pthread_join(server->threads[i], NULL);
    if (server->daemon)
        MHD_stop_daemon(server->daemon); /* nothing is suspended any more */
    free(server->threads);
    pthread_cond_destroy(&server->has_work);
    pthread_mutex_destroy(&server->lock);
    scope_done(&server->sc);
    free(server);
}

/* ---- Prometheus ---- */

struct metrics_server {
    struct MHD_Daemon *daemon;
};

static enum MHD_Result on_metrics(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **state)
{
    (void)cls;
    (void)version;
    (void)upload;
    static int seen;
    if (!*state) {
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_len > 0) {
        *upload_len = 0;
        return MHD_YES;
    }
    struct text body = {0};
    bool is_found = strcmp(url, "/metrics") == 0;
    bool is_read = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (is_found && is_read)
        metrics_write(&body);
    size_t len = body.len;
    char *bytes = text_take(&body);
    struct MHD_Response *response = MHD_create_response_from_buffer(len, bytes, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(bytes);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    enum MHD_Result queued = MHD_queue_response(connection, !is_found ? 404 : is_read ? 200 : 405, response);
    MHD_destroy_response(response);
    return queued;
}

enum status metrics_server_start(struct scope *sc, const struct settings *settings, struct metrics_server **out,
                                 int *out_port)
{
    int fds[LISTEN_MAX], count = 0;
    enum status s = listen_open(sc, settings->api_host, settings->api_metrics_port, fds, &count, out_port);
    for (int i = 1; i < count; i++)
        close(fds[i]); /* one address is enough here */
    if (s != STATUS_OK) {
        if (count > 0)
            close(fds[0]);
        return s;
    }
    struct metrics_server *m = must_calloc(1, sizeof *m);
    m->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL,
                                 on_metrics, NULL, MHD_OPTION_EXTERNAL_LOGGER, on_library_message, NULL,
                                 MHD_OPTION_LISTEN_SOCKET, fds[0], MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_LIMIT, 64U, MHD_OPTION_THREAD_STACK_SIZE,
                                 (size_t)METRICS_STACK_BYTES, MHD_OPTION_END);
    if (!m->daemon) {
        close(fds[0]);
        free(m);
        return fail(sc, STATUS_UNAVAILABLE, "cannot serve METRICS_PORT");
    }
    *out = m;
    return STATUS_OK;
}

void metrics_server_free(struct metrics_server *m)
{
    if (!m)
        return;
    MHD_stop_daemon(m->daemon);
    free(m);
}
