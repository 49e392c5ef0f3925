#include "tests/bench/relay/load_client.h"

#include "common/arena.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_EVENTS = 1024, HEAD_BYTES = 8192 };

static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==", accept_of_key[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

uint64_t load_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void watch(const struct load *l, struct conn *c, int operation, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(l->epoll, operation, c->fd, &e);
}

static void settle(struct load *l, struct conn *c, bool is_ready)
{
    if (c->is_counted)
        return;
    c->is_counted = true;
    c->ready_ns = load_now();
    l->opening--;
    if (is_ready)
        l->ready++;
    else
        l->refused++;
}

/* The end of a connection, whoever wanted it. */
static void end(struct load *l, struct conn *c, const char *why)
{
    close(c->fd);
    c->fd = -1;
    c->closed_ns = load_now();
    free(c->rest);
    c->rest = NULL;
    c->rest_len = c->rest_capacity = 0;
    if (!c->is_counted && !l->first_refusal[0])
        snprintf(l->first_refusal, sizeof l->first_refusal, "%s", why);
    settle(l, c, false);
    bool was_open = c->state == CONN_OPEN;
    c->state = CONN_CLOSED;
    c->is_stopped = false;
    if (c->is_closing)
        return;
    if (was_open)
        l->now.closed++;
    l->now.cut += was_open && !c->close_code;
    if (was_open && l->reconnects)
        conn_open(l, c);
}

static bool begin_connect(const struct load *l, struct conn *c)
{
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (l->receive_buffer)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &l->receive_buffer, sizeof l->receive_buffer);
    uint32_t source = INADDR_LOOPBACK + (uint32_t)((size_t)(c - l->conns) % (size_t)l->sources);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)c->port)};
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0)
        return false;
    return connect(c->fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS;
}

void conn_open(struct load *l, struct conn *c)
{
    c->state = CONN_CONNECTING;
    c->is_counted = c->is_closing = c->is_stopped = false;
    c->close_code = 0;
    c->events = 0;
    c->opened_ns = c->ready_ns = c->closed_ns = 0;
    c->started_ns = load_now();
    l->opening++;
    if (begin_connect(l, c))
        watch(l, c, EPOLL_CTL_ADD, EPOLLOUT | EPOLLIN);
    else
        end(l, c, strerror(errno));
}

static void send_all(const struct conn *c, const char *bytes, size_t len)
{
    /* Some hundred bytes into an empty socket; what does not go there means that the server is gone. */
    ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
    (void)n;
}

static void send_frame(const struct conn *c, int opcode, const char *payload, size_t len)
{
    char frame[131];
    send_all(c, frame, load_frame_write(frame, opcode, payload, len));
}

static void send_head(struct load *l, struct conn *c)
{
    char head[HEAD_BYTES], last_id[80] = "", token[HEAD_BYTES - 2048] = "";
    if (c->id_len)
        snprintf(last_id, sizeof last_id, "%clast_id=%.*s", strchr(c->path, '?') ? '&' : '?', c->id_len, c->id);
    if (strcmp(c->token, "-") != 0)
        snprintf(token, sizeof token, "Sec-WebSocket-Protocol: access_token.%s\r\n", c->token);
    int len = snprintf(head, sizeof head,
                       "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                       c->path, last_id, c->port, key, token);
    c->state = CONN_SHAKING;
    watch(l, c, EPOLL_CTL_MOD, EPOLLIN);
    send_all(c, head, (size_t)len);
}

void conn_close(struct load *l, struct conn *c, bool is_soft)
{
    if (c->state == CONN_NEW || c->state == CONN_CLOSED)
        return;
    struct linger now = {.l_onoff = 1};
    if (is_soft && c->state == CONN_OPEN)
        send_frame(c, FRAME_CLOSE, "\x03\xe8", 2);
    else
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    c->is_closing = true;
    end(l, c, "closed");
}

void conn_stop(struct load *l, struct conn *c)
{
    if (c->state != CONN_OPEN)
        return;
    c->is_stopped = c->is_slow = true;
    c->stopped_ns = load_now();
    watch(l, c, EPOLL_CTL_MOD, EPOLLRDHUP);
}

void conn_go_on(struct load *l, struct conn *c)
{
    if (!c->is_stopped)
        return;
    c->is_stopped = false;
    watch(l, c, EPOLL_CTL_MOD, EPOLLIN);
}

/* ---- what comes ---- */

static void count_event(struct load *l, struct conn *c, const struct load_mark *mark, const char *id, size_t id_len,
                        size_t bytes, uint64_t now)
{
    struct figures *f = &l->now;
    enum sequence_verdict verdict = sequence_take(&c->seen, mark->number);
    bool is_newer = load_id_compare(id, id_len, c->id, c->id_len) > 0;
    if (verdict == SEQUENCE_TWICE && is_newer && id_len)
        f->published_twice++; /* the publisher did not know whether the first one had gone through */
    else if (verdict == SEQUENCE_TWICE)
        *(c->is_slow ? &f->apart_twice : &f->twice) += 1;
    if (verdict == SEQUENCE_LATE || (verdict == SEQUENCE_NEXT && id_len && c->id_len && !is_newer))
        f->late++;
    if (mark->channel != c->channel)
        f->wrong_channel++;
    if (id_len && id_len < sizeof c->id) {
        memcpy(c->id, id, id_len);
        c->id_len = (uint8_t)id_len;
    }
    if (c->is_slow) {
        f->apart_delivered++;
        f->apart_bytes += bytes;
        return;
    }
    if (mark->sent_ns < f->since_ns)
        return;
    f->delivered++;
    f->bytes += bytes;
    f->last_ns = now;
    if (mark->sent_ns >= c->opened_ns)
        histogram_add(&f->latency, now > mark->sent_ns ? now - mark->sent_ns : 0);
}

static void take_text(struct load *l, struct conn *c, const struct load_frame *frame, uint64_t now)
{
    struct load_mark mark;
    if (!load_mark_find(frame->payload, frame->len, &l->guess, &mark)) {
        static const char truncated[] = "\"history_truncated\"";
        bool is_ping = l->speaks_engineio && frame->len == 1 && *frame->payload == '2';
        if (is_ping)
            send_frame(c, FRAME_TEXT, "3", 1);
        l->now.pings += is_ping;
        l->now.others += !is_ping;
        l->now.truncated += memmem(frame->payload, frame->len, truncated, sizeof truncated - 1) != NULL;
        return;
    }
    const char *id = NULL;
    size_t id_len = load_event_id(frame->payload, frame->len, &id);
    count_event(l, c, &mark, id, id_len, frame->len, now);
    if (++c->events == l->wanted_events)
        settle(l, c, true);
}

/* False: the connection has ended. */
static bool take_frame(struct load *l, struct conn *c, const struct load_frame *frame, uint64_t now)
{
    switch (frame->opcode) {
    case FRAME_TEXT:
        take_text(l, c, frame, now);
        return true;
    case FRAME_PING:
        l->now.pings++;
        send_frame(c, FRAME_PONG, frame->payload, frame->len);
        return true;
    case FRAME_CLOSE: {
        char why[160];
        const unsigned char *p = (const unsigned char *)frame->payload;
        c->close_code = frame->len < 2 ? 1005 : (uint16_t)(p[0] << 8 | p[1]);
        snprintf(why, sizeof why, "closed: %d %.*s", c->close_code, frame->len < 2 ? 0 : (int)frame->len - 2,
                 frame->payload + 2);
        send_frame(c, FRAME_CLOSE, frame->payload, frame->len < 2 ? 0 : 2);
        end(l, c, why);
        return false;
    }
    default:
        return true;
    }
}

static size_t take_head(struct load *l, struct conn *c, const char *bytes, size_t len, uint64_t now)
{
    const char *head_end = memmem(bytes, len, "\r\n\r\n", 4);
    if (!head_end)
        return 0;
    size_t taken = (size_t)(head_end - bytes) + 4;
    if (len < 12 || memcmp(bytes, "HTTP/1.1 101", 12) != 0 ||
        !memmem(bytes, taken, accept_of_key, sizeof accept_of_key - 1)) {
        char line[100];
        snprintf(line, sizeof line, "%.*s", (int)strcspn(bytes, "\r"), bytes);
        end(l, c, line);
        return 0;
    }
    c->state = CONN_OPEN;
    c->opened_ns = now;
    if (l->speaks_engineio)
        send_frame(c, FRAME_TEXT, "40", 2);
    if (!l->wanted_events)
        settle(l, c, true);
    return taken;
}

/* How many of the bytes were taken; 0 and a state of CONN_CLOSED when the connection has ended. */
static size_t take(struct load *l, struct conn *c, const char *bytes, size_t len, uint64_t now)
{
    size_t taken = c->state == CONN_SHAKING ? take_head(l, c, bytes, len, now) : 0;
    while (c->state == CONN_OPEN && taken < len) {
        struct load_frame frame;
        long size = load_frame_read(bytes + taken, len - taken, &frame);
        if (size == 0)
            break;
        if (size < 0) {
            l->now.wrong_frames++;
            conn_close(l, c, false);
            return 0;
        }
        if (!take_frame(l, c, &frame, now))
            return 0;
        taken += (size_t)size;
    }
    return taken;
}

static void keep(struct conn *c, const char *bytes, size_t len)
{
    if (len > c->rest_capacity) {
        c->rest_capacity = len;
        c->rest = must_realloc(c->rest, len);
    }
    memcpy(c->rest, bytes, len);
    c->rest_len = len;
    if (len == 0) {
        free(c->rest);
        c->rest = NULL;
        c->rest_capacity = 0;
    }
}

static void readable(struct load *l, struct conn *c)
{
    uint64_t started = c->started_ns;
    size_t before = c->rest_len;
    if (before)
        memcpy(l->buffer, c->rest, before); /* less than MOST_FRAME_BYTES: the buffer has room for that and more */
    ssize_t n = recv(c->fd, l->buffer + before, LOAD_BUFFER_BYTES, 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            end(l, c, n == 0 ? "the connection was ended" : strerror(errno));
        return;
    }
    size_t len = before + (size_t)n, taken = take(l, c, l->buffer, len, load_now());
    bool is_same = c->started_ns == started && c->state != CONN_CLOSED;
    if (is_same && (before || taken < len))
        keep(c, l->buffer + taken, len - taken);
}

void load_turn(struct load *l, int timeout_ms)
{
    struct epoll_event events[MOST_EVENTS];
    int count = epoll_wait(l->epoll, events, MOST_EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        struct conn *c = events[i].data.ptr;
        uint32_t what = events[i].events;
        if (c->fd < 0)
            continue;
        if (c->state == CONN_CONNECTING && !(what & EPOLLOUT))
            end(l, c, "it cannot be reached");
        else if (c->state == CONN_CONNECTING)
            send_head(l, c);
        else if (c->is_stopped && (what & (EPOLLHUP | EPOLLERR)))
            conn_go_on(l, c); /* it was cut: what is there is read, then the end */
        else if (!c->is_stopped)
            readable(l, c);
    }
}
