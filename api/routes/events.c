/* Events over plain HTTP: long polls and Server-Sent Events. The relay answers, see api/relay/stream.h. */
#include "api/relay/stream.h"
#include "api/router.h"

#include <string.h>

/* `after` of a poll; an EventSource says by a header how far it came, and by the query where it begins. */
static const char *position_of(struct request *r, bool is_stream)
{
    const char *seen = is_stream ? request_header(r, "Last-Event-ID") : NULL;
    const char *after = request_query(r, "after");
    if (seen && *seen)
        return seen;
    return after ? after : request_query(r, "last_event_id");
}

static enum status hand_over(struct request *r, const char *operation_id)
{
    bool wants_stream = header_accepts(request_header(r, "Accept"), "text/event-stream");
    bool is_head = strcmp(r->method, "HEAD") == 0;
    int64_t wait = 0;
    enum status s = request_query_int(r, "wait", 0, STREAM_WAIT_MOST_SECONDS, 0, &wait);
    if (s != STATUS_OK)
        return s;
    if (r->api->is_draining)
        return fail(r->sc, STATUS_BUSY, "this server is about to end");
    struct stream_wish wish = {
        .is_poll = is_head || !wants_stream,
        .wait_ms = is_head ? 0 : wait * 1000,
        .operation_id = operation_id,
        .after = position_of(r, wants_stream),
        .user_id = r->user.id,
        .api_key_id = r->user.api_key_id,
        .expires_at = r->user.token_expires_at,
        .is_superuser = r->user.is_superuser,
    };
    reply_header(r, "Vary", "Origin, Accept, Accept-Encoding");
    if (is_head && wants_stream)
        r->reply.content_type = "text/event-stream";
    r->stream = stream_new(&wish);
    return STATUS_OK;
}

enum status events_of_operation(struct request *r)
{
    return hand_over(r, request_id_param(r, 0));
}

enum status events_of_user(struct request *r)
{
    return hand_over(r, NULL);
}
