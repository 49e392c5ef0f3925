#include "worker/internal_http.h"

#include "common/json.h"
#include "common/listen.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/chunk_preview.h"
#include "worker/embed/client.h"
#include "worker/embed/wire.h"
#include "worker/slow_lane.h"

#include <microhttpd.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum {
    THREADS = 4,
    THREAD_STACK_BYTES = 256 << 10,
    IDLE_CLIENTS = 8,
    LARGEST_BODY_BYTES = 16 << 20,
    EMBED_TIMEOUT_MS = 30000,
    READY_TIMEOUT_MS = 500,
    IDLE_SECONDS = 75,
    MOST_CONNECTIONS = 256,
    SLOW_THREADS = 2,
    MOST_SLOW_WAITING = 4,
};

struct internal_http {
    struct MHD_Daemon *daemon;
    const struct settings *settings;
    char *embedder_socket;
    const char *(*is_ready)(void *context);
    void *context;
    int port;
    pthread_mutex_t lock; /* guards the idle clients */
    struct embed_client *idle[IDLE_CLIENTS];
    int idle_count;
    struct chunk_preview *preview;
    struct slow_lane *slow; /* a preview must not keep a thread from queries that are to be embedded */
};

/* One request while its body comes in, and while it waits for a thread of the slow lane. */
struct request {
    struct slow_job job; /* comes first: the lane gives it back */
    struct internal_http *http;
    struct MHD_Connection *connection;
    const char *method, *path; /* libmicrohttpd's, as long as the connection */
    struct text body;
    bool is_too_large;
    bool is_done; /* by the slow lane: */
    enum status status;
    struct text out;
};

struct route {
    const char *method;
    const char *path;
    bool needs_key;
    bool is_slow;
    enum status (*handle)(struct scope *sc, struct internal_http *http, const struct text *body, struct text *out);
};

static struct embed_client *client_take(struct internal_http *http)
{
    struct embed_client *c = NULL;
    pthread_mutex_lock(&http->lock);
    if (http->idle_count > 0)
        c = http->idle[--http->idle_count];
    pthread_mutex_unlock(&http->lock);
    return c ? c : embed_client_new(http->embedder_socket);
}

static void client_give(struct internal_http *http, struct embed_client *c)
{
    pthread_mutex_lock(&http->lock);
    if (http->idle_count < IDLE_CLIENTS) {
        http->idle[http->idle_count++] = c;
        c = NULL;
    }
    pthread_mutex_unlock(&http->lock);
    embed_client_free(c);
}

/* `texts` of a request; the strings live as long as `body`. */
static enum status read_texts(struct scope *sc, const cJSON *body, struct embed_text **out, size_t *out_count)
{
    const cJSON *texts = cJSON_GetObjectItemCaseSensitive(body, "texts");
    if (!cJSON_IsArray(texts) || !texts->child)
        return fail(sc, STATUS_UNPROCESSABLE, "texts must be a list of one or more strings");
    size_t count = 0;
    for (const cJSON *t = texts->child; t; t = t->next, count++) {
        if (!cJSON_IsString(t))
            return fail(sc, STATUS_UNPROCESSABLE, "texts[%zu] is not a string", count);
    }
    if (count > WIRE_MAX_TEXTS)
        return fail(sc, STATUS_UNPROCESSABLE, "at most %d texts at a time", WIRE_MAX_TEXTS);
    struct embed_text *list = arena_array(&sc->arena, count, sizeof *list);
    size_t i = 0;
    for (const cJSON *t = texts->child; t; t = t->next, i++)
        list[i] = (struct embed_text){t->valuestring, strlen(t->valuestring)};
    *out = list;
    *out_count = count;
    return STATUS_OK;
}

static enum status read_request(struct scope *sc, const struct text *body, cJSON **out_json,
                                struct embed_text **out_texts, size_t *out_count)
{
    enum status s = json_parse(sc, text_str(body), body->len, out_json);
    return s == STATUS_OK ? read_texts(sc, *out_json, out_texts, out_count) : s;
}

static enum status handle_embed(struct scope *sc, struct internal_http *http, const struct text *body, struct text *out)
{
    scoped(cJSON) *json = NULL;
    struct embed_text *texts = NULL;
    size_t count = 0;
    enum status s = read_request(sc, body, &json, &texts, &count);
    if (s != STATUS_OK)
        return s;
    const char *mode = json_get_text(json, "mode", "passage");
    bool is_query = strcmp(mode, "query") == 0;
    if (!is_query && strcmp(mode, "passage") != 0)
        return fail(sc, STATUS_UNPROCESSABLE, "mode must be query or passage");
    struct embed_client *client = client_take(http);
    struct embed_answer answer = {0};
    s = embed_client_run(sc, client, json_get_text(json, "model", NULL), is_query ? EMBED_QUERY : EMBED_PASSAGE, NULL,
                         texts, count, EMBED_TIMEOUT_MS, &answer, NULL);
    client_give(http, client);
    if (s != STATUS_OK)
        return s;
    json_open(out, NULL, '{');
    json_text(out, "model", answer.model);
    json_int(out, "dim", answer.dim);
    json_open(out, "vectors", '[');
    for (size_t i = 0; i < count; i++) {
        json_open(out, NULL, '[');
        for (int d = 0; d < answer.dim; d++)
            text_printf(out, "%s%.8g", d ? "," : "", (double)answer.vectors[i * (size_t)answer.dim + (size_t)d]);
        json_close(out, ']');
    }
    json_close(out, ']');
    json_int(out, "tokens", answer.tokens);
    json_close(out, '}');
    return STATUS_OK;
}

static enum status handle_tokenize(struct scope *sc, struct internal_http *http, const struct text *body,
                                   struct text *out)
{
    scoped(cJSON) *json = NULL;
    struct embed_text *texts = NULL;
    size_t count = 0;
    enum status s = read_request(sc, body, &json, &texts, &count);
    if (s != STATUS_OK)
        return s;
    struct embed_client *client = client_take(http);
    struct token_ids *lists = NULL;
    s = embed_client_tokenize(sc, client, json_get_text(json, "model", NULL), !json_get_bool(json, "truncate", true),
                              texts, count, EMBED_TIMEOUT_MS, &lists);
    client_give(http, client);
    if (s != STATUS_OK)
        return s;
    json_open(out, NULL, '{');
    json_open(out, "ids", '[');
    for (size_t i = 0; i < count; i++) {
        json_open(out, NULL, '[');
        for (size_t j = 0; j < lists[i].count; j++)
            json_int(out, NULL, lists[i].ids[j]);
        json_close(out, ']');
    }
    json_close(out, ']');
    json_close(out, '}');
    return STATUS_OK;
}

static enum status handle_chunk(struct scope *sc, struct internal_http *http, const struct text *body, struct text *out)
{
    return chunk_preview_run(http->preview, sc, body, out);
}

static enum status handle_metrics(struct scope *sc, struct internal_http *http, const struct text *body,
                                  struct text *out)
{
    (void)sc;
    (void)http;
    (void)body;
    metrics_write(out);
    return STATUS_OK;
}

static enum status handle_live(struct scope *sc, struct internal_http *http, const struct text *body, struct text *out)
{
    (void)sc;
    (void)http;
    (void)body;
    text_puts(out, "{\"status\":\"healthy\",\"service\":\"worker\"}");
    return STATUS_OK;
}

static enum status handle_ready(struct scope *sc, struct internal_http *http, const struct text *body, struct text *out)
{
    (void)body;
    const char *reason = http->is_ready ? http->is_ready(http->context) : NULL;
    if (reason)
        return fail(sc, STATUS_UNAVAILABLE, "%s", reason);
    struct embed_client *client = client_take(http);
    const char *info = NULL;
    enum status s = embed_client_info(sc, client, READY_TIMEOUT_MS, &info);
    client_give(http, client);
    if (s != STATUS_OK)
        return s;
    json_open(out, NULL, '{');
    json_bool(out, "ready", true);
    json_raw(out, "embedder", info);
    json_close(out, '}');
    return STATUS_OK;
}

static const struct route routes[] = {
    {"POST", "/internal/embed", true, false, handle_embed},
    {"POST", "/internal/tokenize", true, false, handle_tokenize},
    {"POST", "/internal/chunk", true, true, handle_chunk},
    {"GET", "/metrics", false, false, handle_metrics},
    {"GET", "/healthz", false, false, handle_live},
    {"GET", "/readyz", false, false, handle_ready},
};

static bool is_same_secret(const char *expected, const char *given)
{
    if (!expected || !*expected || !given)
        return false;
    size_t len = strlen(expected), given_len = strlen(given);
    unsigned char difference = len == given_len ? 0 : 1;
    for (size_t i = 0; i < len; i++)
        difference |= (unsigned char)(expected[i] ^ given[i < given_len ? i : 0]) | (unsigned char)(given_len == 0);
    return difference == 0;
}

/* Everything that can be said before the body comes: nothing is kept of what a stranger sends. */
static enum status check_head(struct scope *sc, const struct internal_http *http, struct MHD_Connection *connection,
                              const char *method, const char *path, const struct route **out)
{
    bool is_known_path = false;
    for (size_t i = 0; i < array_len(routes); i++) {
        const struct route *route = &routes[i];
        if (strcmp(route->path, path) != 0)
            continue;
        is_known_path = true;
        if (strcmp(route->method, method) != 0)
            continue;
        const char *key = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "X-Internal-Api-Key");
        if (route->needs_key && !is_same_secret(http->settings->internal_api_key, key))
            return fail(sc, STATUS_UNAUTHENTICATED, "X-Internal-Api-Key is missing or wrong");
        *out = route;
        return STATUS_OK;
    }
    return is_known_path ? fail(sc, STATUS_METHOD, "Method Not Allowed") : fail(sc, STATUS_NOT_FOUND, "Not Found");
}

static enum status dispatch(struct scope *sc, const struct request *r, struct text *out)
{
    const struct route *route = NULL;
    enum status s = check_head(sc, r->http, r->connection, r->method, r->path, &route);
    if (s == STATUS_OK && r->is_too_large)
        s = fail(sc, STATUS_TOO_LARGE, "the body is larger than %d bytes", LARGEST_BODY_BYTES);
    return s == STATUS_OK && route ? route->handle(sc, r->http, &r->body, out) : s;
}

/* NULL: nothing is to be read of it. */
static const struct route *route_of(const struct request *r)
{
    struct scope sc;
    const struct route *route = NULL;
    scope_init(&sc, NULL);
    enum status s = check_head(&sc, r->http, r->connection, r->method, r->path, &route);
    scope_done(&sc);
    return s == STATUS_OK ? route : NULL;
}

static void run(struct request *r)
{
    struct scope sc;
    scope_init(&sc, NULL);
    enum status s = dispatch(&sc, r, &r->out);
    if (s == STATUS_CANCELLED) /* told to stop: the worker is about to end */
        s = STATUS_UNAVAILABLE;
    if (s != STATUS_OK) {
        text_clear(&r->out);
        json_open(&r->out, NULL, '{');
        json_text(&r->out, "detail", sc.problem_text ? sc.problem_text : status_text(s));
        json_close(&r->out, '}');
        log_debug("internal_request_failed", log_text("path", r->path), log_text("status", status_name(s)),
                  log_text("problem", sc.problem_text));
    }
    r->status = s;
    r->is_done = true;
    scope_done(&sc);
}

static enum MHD_Result send_answer(struct request *r)
{
    size_t len = r->out.len;
    char *body = text_take(&r->out);
    struct MHD_Response *response = MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(body);
        return MHD_NO;
    }
    bool is_text = r->status == STATUS_OK && strcmp(r->path, "/metrics") == 0;
    MHD_add_response_header(response, "Content-Type", is_text ? "text/plain; version=0.0.4" : "application/json");
    if (r->status == STATUS_UNAVAILABLE || r->status == STATUS_BUSY)
        MHD_add_response_header(response, "Retry-After", "2");
    enum MHD_Result queued = MHD_queue_response(r->connection, (unsigned)status_http(r->status), response);
    MHD_destroy_response(response);
    return queued;
}

static void run_slowly(struct slow_job *job)
{
    struct request *r = (struct request *)job;
    run(r);
    MHD_resume_connection(r->connection);
}

static enum MHD_Result answer_slowly(struct request *r)
{
    r->job.run = run_slowly;
    MHD_suspend_connection(r->connection);
    if (slow_lane_push(r->http->slow, &r->job))
        return MHD_YES;
    r->status = STATUS_UNAVAILABLE;
    text_puts(&r->out, "{\"detail\":\"too many previews at a time; try again shortly\"}");
    r->is_done = true;
    MHD_resume_connection(r->connection);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **state)
{
    (void)version;
    struct request *r = *state;
    if (!r) {
        *state = r = must_calloc(1, sizeof *r);
        *r = (struct request){.http = cls, .connection = connection, .method = method, .path = path};
        if (route_of(r))
            return MHD_YES;
        run(r);
        return send_answer(r);
    }
    if (*upload_len > 0) {
        if (r->body.len + *upload_len > LARGEST_BODY_BYTES)
            r->is_too_large = true;
        else
            text_append(&r->body, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    if (!r->is_done) {
        const struct route *route = route_of(r);
        if (route && route->is_slow)
            return answer_slowly(r);
        run(r);
    }
    return send_answer(r);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)connection;
    (void)code;
    struct request *r = *state;
    if (r) {
        text_free(&r->body);
        text_free(&r->out);
    }
    free(r);
    *state = NULL;
}

enum status internal_http_start(struct scope *sc, const struct settings *settings, const char *embedder_socket,
                                const char *(*is_ready)(void *context), void *context, struct internal_http **out)
{
    int fd, port;
    enum status s = listen_one(sc, settings->worker_host, settings->worker_port, &fd, &port);
    if (s != STATUS_OK)
        return s;
    struct internal_http *http = must_calloc(1, sizeof *http);
    http->settings = settings;
    http->embedder_socket = must_strdup(embedder_socket);
    http->is_ready = is_ready;
    http->context = context;
    http->port = port;
    http->preview = chunk_preview_new(settings, embedder_socket);
    http->slow = slow_lane_new(SLOW_THREADS, MOST_SLOW_WAITING);
    chunk_preview_on_wait(http->preview, slow_lane_is_closing, http->slow);
    pthread_mutex_init(&http->lock, NULL);
    http->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, http,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)THREAD_STACK_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)MOST_CONNECTIONS, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
    if (!http->daemon) {
        close(fd);
        internal_http_free(http);
        return fail(sc, STATUS_UNAVAILABLE, "cannot start the internal HTTP server");
    }
    *out = http;
    return STATUS_OK;
}

int internal_http_port(const struct internal_http *http)
{
    return http->port;
}

void internal_http_free(struct internal_http *http)
{
    if (!http)
        return;
    slow_lane_close(http->slow); /* resumes what is suspended, as libmicrohttpd asks for */
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    slow_lane_free(http->slow);
    chunk_preview_free(http->preview);
    for (int i = 0; i < http->idle_count; i++)
        embed_client_free(http->idle[i]);
    pthread_mutex_destroy(&http->lock);
    free(http->embedder_socket);
    free(http);
}
