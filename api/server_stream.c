/* Requests that the relay answers: events over plain HTTP. */
#include "api/server_state.h"

#include "api/limit.h"
#include "api/relay/relay.h"

#include <string.h>

enum { RETRY_SECONDS = 5 /* when a place may be free again is not known */ };

static void resume(void *context)
{
    MHD_resume_connection(context);
}

/* The connection is suspended; from here on it is the relay's. */
void server_stream_attach(struct server_connection *c)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct stream_http http = {
        .fd = info->connect_fd,
        .is_chunked = !c->is_http_1_0,
        .resume = resume,
        .context = c->mhd,
    };
    relay_attach(c->server->api->relay, c->request.stream, &http);
}

/* Nothing of the stream goes through here: the library is only told when it ends. */
static ssize_t flow(void *cls, uint64_t position, char *buffer, size_t most)
{
    (void)position;
    (void)buffer;
    (void)most;
    struct server_connection *c = cls;
    switch (stream_end(c->request.stream)) {
    case STREAM_ENDED:
        return MHD_CONTENT_READER_END_OF_STREAM;
    case STREAM_CUT:
        return MHD_CONTENT_READER_END_WITH_ERROR;
    case STREAM_LASTS:
        break;
    }
    MHD_suspend_connection(c->mhd);
    stream_flow(c->request.stream);
    return 0;
}

static enum MHD_Result begin_stream(struct server_connection *c)
{
    enum { BLOCK_BYTES = 64 }; /* nothing is ever put into it */
    struct request *r = &c->request;
    reply_header(r, "X-Accel-Buffering", "no");
    reply_header(r, "Connection", "close"); /* who comes back may come to another instance */
    if (!c->is_http_1_0)
        reply_header(r, "Transfer-Encoding", "chunked");
    reply_header(r, "Content-Type", "text/event-stream");
    c->http = 200;
    c->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, flow, c, NULL);
    if (c->response)
        server_add_headers(c, c->response);
    return server_send_response(c);
}

static void refuse(struct server_connection *c)
{
    struct request *r = &c->request;
    const char *reason;
    int64_t most;
    enum status s = stream_refusal(r->stream, &reason, &most);
    if (s == STATUS_RATE_LIMITED)
        (void)limit_refuse(r, reason, most, RETRY_SECONDS);
    else
        reply_error(r, fail(&c->sc, s, "%s", reason));
}

enum MHD_Result server_stream_answer(struct server_connection *c)
{
    struct request *r = &c->request;
    switch (stream_answer(r->stream)) {
    case STREAM_BEGINS:
        return begin_stream(c);
    case STREAM_BROKEN:
        return MHD_NO;
    case STREAM_BODY:
        r->reply.http = 200;
        r->reply.body = *stream_body(r->stream);
        *stream_body(r->stream) = (struct text){0};
        break;
    case STREAM_REFUSED:
        refuse(c);
        break;
    }
    c->request.accepts_gzip = false; /* this thread has no time for it */
    server_make_response(c);
    return server_send_response(c);
}
