#include "api/server_state.h"

#include "api/address.h"
#include "api/dispatch.h"
#include "api/relay/stream.h"
#include "api/router.h"
#include "api/together.h"
#include "common/clock.h"
#include "common/listen.h"
#include "common/log.h"
#include "common/message.h"
#include "common/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
    HANDLER_STACK_BYTES = 512 << 10,
    LOOP_STACK_BYTES = 256 << 10,
    CONNECTION_MEMORY_BYTES = 32 << 10, /* head, header fields and the head of the answer */
    MAX_CONNECTIONS = 16384,
    IDLE_SECONDS = 75,       /* longer than the proxies in front keep theirs */
    BODY_SECONDS = 30,       /* from the request line to the last byte of the body */
    BODIES_BYTES = 64 << 20, /* of all bodies together that are kept in memory, unless a few large ones take more */
    LARGE_BODIES = 4,
    SWALLOWED_BYTES =
        16 << 20, /* of a body that is refused: read to its end, so that the client gets to see the answer */
};

const char *server_header(struct server_connection *c, const char *name)
{
    return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name);
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
        address_join_forwarded(joined, value, strlen(value));
    return MHD_YES;
}

static const char *find_client(struct server_connection *c)
{
    char peer[64];
    scoped_text forwarded = {0}; /* bounded by what a head may have */
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    address_text(info ? info->client_addr : NULL, peer);
    MHD_get_connection_values(c->mhd, MHD_HEADER_KIND, join_forwarded, &forwarded);
    return address_of_client(&c->sc.arena, c->server->trusted, peer, forwarded.data);
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
    r->accepts_gzip = header_accepts(server_header(c, "Accept-Encoding"), "gzip");
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
    return does_wait || bytes > SWALLOWED_BYTES ? server_send_error(c, c->refused) : MHD_YES;
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
                     "Authorization, Content-Type, Accept, X-Correlation-ID, X-Requested-With, Idempotency-Key, "
                     "Last-Event-ID");
        reply_header(r, "Access-Control-Max-Age", "600");
    }
    server_make_response(c);
    return server_send_response(c);
}

/* The whole request is here. */
static enum MHD_Result on_complete(struct server_connection *c)
{
    struct request *r = &c->request;
    if (c->received_bytes > 0)
        MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)IDLE_SECONDS);
    if (c->refused != STATUS_OK)
        return server_send_error(c, c->refused);
    if (strcmp(r->method, "OPTIONS") == 0)
        return answer_options(c);
    r->body = text_str(&c->body);
    r->body_len = c->body.len;
    if (r->route->access == ACCESS_PROBE) {
        dispatch(r);
        server_make_response(c);
        return server_send_response(c);
    }
    c->queued_ms = clock_monotonic_ms();
    c->may_gather = together_may(r);
    MHD_suspend_connection(c->mhd);
    if (server_enqueue(c->server, c))
        return MHD_YES;
    reply_error(r, fail(&c->sc, STATUS_BUSY, "the queue of requests is full"));
    server_make_response(c);
    MHD_resume_connection(c->mhd);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **state)
{
    (void)cls;
    (void)url;
    struct server_connection *c = *state;
    if (!c)
        return MHD_NO;
    c->mhd = connection;
    if (!c->has_begun) {
        c->is_http_1_0 = strcmp(version, "HTTP/1.0") == 0;
        return on_head(c, method);
    }
    if (*upload_len > 0) {
        size_t len = *upload_len;
        *upload_len = 0;
        return on_body(c, upload, len);
    }
    if (c->request.stream)
        return server_stream_answer(c);
    return c->is_answered ? server_send_response(c) : on_complete(c);
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
    stream_done(c->request.stream);
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

/* ---- start and end ---- */

static enum status start_threads(struct scope *sc, struct server *server)
{
    int wanted = (int)server->api->settings->api_threads;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, HANDLER_STACK_BYTES);
    server->threads = must_calloc((size_t)wanted, sizeof *server->threads);
    while (server->thread_count < wanted &&
           pthread_create(&server->threads[server->thread_count], &attributes, server_handle_requests, server) == 0)
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
        flags, 0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, server_log_message, NULL,
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
    server_queue_init(server);
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
