#include "api/server_state.h"

#include "api/router.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

enum { GZIP_FROM_BYTES = 1024 };

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

void server_add_headers(struct server_connection *c, struct MHD_Response *response)
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
void server_make_response(struct server_connection *c)
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
    server_add_headers(c, c->response);
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

enum MHD_Result server_send_response(struct server_connection *c)
{
    log_access(c);
    if (!c->response)
        return MHD_NO; /* no memory: the connection is closed */
    enum MHD_Result queued = MHD_queue_response(c->mhd, c->http, c->response);
    MHD_destroy_response(c->response);
    c->response = NULL;
    return queued;
}

enum MHD_Result server_send_error(struct server_connection *c, enum status s)
{
    reply_error(&c->request, s);
    server_make_response(c);
    return server_send_response(c);
}

void server_log_message(void *cls, const char *format, va_list args)
{
    (void)cls;
    char message[512];
    int n = vsnprintf(message, sizeof message, format, args);
    if (n > 0 && message[strlen(message) - 1] == '\n')
        message[strlen(message) - 1] = '\0';
    log_debug("microhttpd", log_text("message", message));
}
