#include "api/request.h"
#include "api/router.h"

#include <stdio.h>
#include <string.h>

struct text *reply_json(struct request *r, int http)
{
    r->reply.http = http;
    text_clear(&r->reply.body);
    return &r->reply.body;
}

enum status reply_empty(struct request *r, int http)
{
    reply_json(r, http);
    return STATUS_OK;
}

enum status reply_constant(struct request *r, int http, const char *json)
{
    text_puts(reply_json(r, http), json);
    return STATUS_OK;
}

/* A value with a line break would let a client write headers of its own. */
static bool is_header_text(const char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < ' ' && *s != '\t')
            return false;
    }
    return true;
}

void reply_header(struct request *r, const char *name, const char *value)
{
    struct reply *reply = &r->reply;
    if (reply->header_count == array_len(reply->headers) || !is_header_text(value))
        return;
    reply->headers[reply->header_count++] = (struct reply_header){name, arena_strdup(&r->sc->arena, value)};
}

/* Sentences of faults on our side name hosts and tables: they are for the log. */
static const char *detail_of(const struct request *r, enum status s)
{
    bool is_shown = status_http(s) < 500 || s == STATUS_NOT_IMPLEMENTED;
    return is_shown && r->sc->problem_text ? r->sc->problem_text : status_text(s);
}

static void write_invalid(struct request *r, struct text *t, const char *detail)
{
    struct text *noted = &r->reply.invalid;
    json_open(t, "detail", '[');
    if (noted->len) {
        text_append(t, noted->data, noted->len);
    } else {
        json_open(t, NULL, '{');
        json_text(t, "type", "value_error");
        json_open(t, "loc", '[');
        json_text(t, NULL, "body");
        json_close(t, ']');
        json_text(t, "msg", detail);
        json_null(t, "input");
        json_close(t, '}');
    }
    json_close(t, ']');
}

void reply_error(struct request *r, enum status s)
{
    int http = status_http(s);
    const char *detail = detail_of(r, s);
    struct text *t = reply_json(r, http);
    r->reply.content_type = NULL;
    json_open(t, NULL, '{');
    if (s == STATUS_UNPROCESSABLE) {
        write_invalid(r, t, detail);
    } else {
        json_text(t, "detail", detail);
        if (http == 500)
            json_text(t, "correlation_id", r->sc->trace_id);
        else
            json_text(t, "reference", arena_printf(&r->sc->arena, "ERR-%s", r->sc->trace_id));
    }
    if (http == 503) {
        json_int(t, "retry_after", 2);
        reply_header(r, "Retry-After", "2");
    }
    json_close(t, '}');
    if (http == 401 && !(r->route && r->route->handler == auth_login))
        reply_header(r, "WWW-Authenticate", "Bearer");
}
