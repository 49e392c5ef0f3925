/* Events for those who cannot open a WebSocket: a request over plain HTTP that the relay answers, either as one of
 * Server-Sent Events that lasts, or as a long poll that is answered once. To the rest of the relay it is a client like
 * a WebSocket, with another wire.
 *
 * The connection is the HTTP server's (libmicrohttpd, which does the head of the answer and its end) and the relay's in
 * turn: whoever does not have it does not touch it, so that no byte is copied between threads and nothing is locked.
 * The server suspends it and gives it away with relay_attach() or stream_flow(); the relay gives it back by `resume`.
 *
 *   server  relay_attach()         the request is here and its user known
 *   relay   resume                 stream_answer() says what to do: refuse, send a body, or begin to stream
 *   server  stream_flow()          the head of the stream is sent: the relay writes to the socket itself
 *   relay   resume                 stream_end() says how it ends
 *   server  stream_done()          at any time when the connection is its */
#pragma once

#include "common/scope.h"
#include "common/text.h"

struct stream;

enum { STREAM_WAIT_MOST_SECONDS = 60 };

struct stream_wish {
    bool is_poll;
    int64_t wait_ms;          /* of a poll, until it is answered though there is nothing */
    const char *operation_id; /* lower case; NULL = all operations of the user */
    const char *after;        /* an event's id, as the client wrote it; NULL = it did not */
    int64_t user_id, api_key_id, expires_at;
    bool is_superuser;
};

struct stream_http {
    int fd;
    bool is_chunked; /* what is streamed goes out in chunks of HTTP/1.1 */
    void (*resume)(void *context);
    void *context;
};

enum stream_answer {
    STREAM_REFUSED, /* by stream_refusal() */
    STREAM_BODY,    /* 200 with stream_body() */
    STREAM_BEGINS,  /* 200, and stream_flow() once the head was sent */
    STREAM_BROKEN,  /* nobody is there any more: close */
};

enum stream_end { STREAM_LASTS, STREAM_ENDED, STREAM_CUT };

/* Copies what it needs. */
struct stream *stream_new(const struct stream_wish *wish);
enum stream_answer stream_answer(const struct stream *s);
/* The sentence lives as long as the stream. *out_most: of STATUS_RATE_LIMITED, the number that would be passed. */
enum status stream_refusal(const struct stream *s, const char **out_reason, int64_t *out_most);
/* JSON; the caller takes it. */
struct text *stream_body(struct stream *s);
void stream_flow(struct stream *s);
enum stream_end stream_end(const struct stream *s);
/* The request is over, however it went. NULL is nothing. */
void stream_done(struct stream *s);
