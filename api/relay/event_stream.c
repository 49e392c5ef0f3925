/* The wire of Server-Sent Events: the relay writes to the socket of a suspended HTTP connection.
 *
 * libmicrohttpd has sent the head, holds nothing back, and does not touch the socket until it is resumed. A copy
 * through it would cost its only thread a turn for every event and every stream, and every other request would wait for
 * it. */
#include "api/relay/stream_state.h"

#include "common/json.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    SEND_BUFFER_BYTES = 128 << 10, /* as WebSockets have */
    RETRY_MS = 3000,
    RETRY_LEAST_MS = 1000, /* after a drain they come back spread */
    RETRY_SPREAD_MS = 4000,
};

static bool is_busy(const struct client *c)
{
    const struct stream *s = stream_of(c);
    return !s->is_ours || !s->is_begun || s->rest.len > 0;
}

/* What of the parts was not written. */
static void keep_rest(struct stream *s, const struct iovec *parts, int count, size_t written)
{
    for (int i = 0; i < count; i++) {
        size_t skipped = written < parts[i].iov_len ? written : parts[i].iov_len;
        text_append(&s->rest, (const char *)parts[i].iov_base + skipped, parts[i].iov_len - skipped);
        written -= skipped;
    }
}

static bool send_parts(struct stream *s, struct iovec *parts, int count)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    ssize_t n = sendmsg(s->http.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return false;
    keep_rest(s, parts, count, n > 0 ? (size_t)n : 0);
    stream_watch(s, s->rest.len > 0);
    return true;
}

static bool write_bytes(struct client *c, const unsigned char *bytes, size_t len)
{
    struct stream *s = stream_of(c);
    char size[20];
    if (c->state == CLIENT_CLOSING)
        stream_ready(s); /* it may have been the last word */
    if (len == 0)
        return true; /* an empty chunk would be the last one */
    if (!s->http.is_chunked)
        return send_parts(s, &(struct iovec){(void *)bytes, len}, 1);
    int size_len = snprintf(size, sizeof size, "%zx\r\n", len);
    struct iovec parts[] = {{size, (size_t)size_len}, {(void *)bytes, len}, {(char *)"\r\n", 2}};
    return send_parts(s, parts, 3);
}

static bool write_rest(struct stream *s)
{
    struct text rest = s->rest;
    s->rest = (struct text){0};
    bool is_written = send_parts(s, &(struct iovec){rest.data, rest.len}, 1);
    text_free(&rest);
    return is_written;
}

static void want_write(struct client *c)
{
    if (!is_busy(c))
        stream_ready(stream_of(c));
}

static void cut(struct client *c, bool is_hard)
{
    struct stream *s = stream_of(c);
    s->is_cut = true;
    s->is_hard = s->is_hard || is_hard;
    stream_ready(s);
}

static bool is_unheard(const struct client *c, int64_t for_ms)
{
    const struct stream *s = stream_of(c);
    struct tcp_info info;
    socklen_t len = sizeof info;
    if (!s->is_ours || getsockopt(s->http.fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return false;
    return info.tcpi_unacked > 0 && info.tcpi_last_ack_recv >= for_ms;
}

/* A browser's EventSource comes back by itself, with the id that it saw last. */
static struct frame *goodbye(int code, const char *reason)
{
    scoped_text out = {0}, json = {0};
    if (code == CLOSE_RESTART) {
        uint32_t random = 0;
        ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
        (void)n;
        text_printf(&out, "retry: %u\n", RETRY_LEAST_MS + random % RETRY_SPREAD_MS);
    }
    json_open(&json, NULL, '{');
    json_int(&json, "code", code);
    json_text(&json, "reason", reason);
    json_close(&json, '}');
    text_printf(&out, "event: close\ndata: %s\n\n", json.data);
    return frame_raw(out.data, out.len);
}

static void drop(struct client *c)
{
    if (c->wire)
        stream_refuse(stream_of(c), STATUS_BUSY, "too much at once");
}

static void open_client(struct client *c)
{
    struct stream *s = stream_of(c);
    if (!s) {
        lookup_leave(c); /* it went while it was looked up */
        return;
    }
    client_established(c);
    if (c->state == CLIENT_CLOSING) {
        stream_refuse_client(s, c);
        return;
    }
    stream_count(s);
    c->speaks_resume = true;
    s->start = c->replay.position;
    s->is_start_known = c->is_position_known;
    stream_begin(s);
}

const struct wire_ops event_wire = {
    .open = open_client,
    .drop = drop,
    .is_busy = is_busy,
    .write = write_bytes,
    .want_write = want_write,
    .cut = cut,
    .is_unheard = is_unheard,
    .goodbye = goodbye,
};

/* ---- its turns ---- */

static void prepare_socket(const struct stream *s, int64_t heartbeat_seconds)
{
    int bytes = SEND_BUFFER_BYTES, on = 1;
    unsigned unanswered_ms = (unsigned)(heartbeat_seconds > 0 ? heartbeat_seconds : 1) * 2500;
    setsockopt(s->http.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(s->http.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    /* No pong tells whether somebody is there: the kernel says when heartbeats are not acknowledged. */
    setsockopt(s->http.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
}

/* A stream that begins with what comes from now on tells where that is, so that one that breaks before its first event
 * is resumed without a hole. */
static bool greet(struct stream *s)
{
    struct client *c = s->client;
    char id[64];
    scoped_text out = {0};
    prepare_socket(s, c->hub->settings->ws_heartbeat_interval);
    text_printf(&out, "retry: %d\n", RETRY_MS);
    if (c->kind == WS_OPERATIONS && s->is_start_known) {
        event_id_text(&s->start, id);
        text_printf(&out, "id: %s\n", id);
    }
    text_putc(&out, '\n');
    return write_bytes(c, (const unsigned char *)out.data, out.len);
}

static void throw_away(const struct stream *s)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(s->http.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static bool is_said(const struct client *c)
{
    return c->state == CLIENT_CLOSING && c->queue_count == 0;
}

void event_turn(struct stream *s)
{
    struct client *c = s->client;
    if (!s->is_begun) {
        if (s->is_cut)
            stream_refuse(s, STATUS_BUSY, "this server is about to end");
        return;
    }
    if (!s->is_greeted) {
        s->is_greeted = true;
        s->is_cut = s->is_cut || !greet(s);
    }
    if (s->rest.len > 0 && !write_rest(s))
        s->is_cut = s->is_hard = true;
    if (s->rest.len == 0 && !s->is_cut)
        client_writeable(c);
    if (s->is_hard)
        throw_away(s);
    if (s->is_cut || (is_said(c) && s->rest.len == 0))
        stream_finish(s, s->is_hard || s->rest.len > 0 ? STREAM_CUT : STREAM_ENDED);
}
