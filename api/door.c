#include "api/door.h"

#include "api/address.h"
#include "api/head.h"
#include "api/relay/gate.h"
#include "api/relay/relay.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/listen.h"
#include "common/log.h"
#include "common/message.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    STACK_BYTES = 128 << 10,
    SILENCE_MS = 10000,
    MAX_WAITING = 16384,
    EVENTS = 64,
    ACCEPTS_A_TURN = 64,
    PAUSE_MS = 100, /* of accepting, when descriptors have run out */
    COMPLAIN_MS = 10000,
    RETRY_SECONDS = 2,
};

enum source_kind { SOURCE_WAKE, SOURCE_LISTENER, SOURCE_VISITOR };

/* What epoll names. */
struct source {
    enum source_kind kind;
    int fd;
    bool is_ws_port;
};

/* A connection whose request head has not come yet. In the order of their deadlines. */
struct visitor {
    struct source source;
    struct sockaddr_storage address;
    socklen_t address_len;
    int64_t deadline_ms;
    struct visitor *next, *prev;
};

struct door {
    struct api *api;
    struct server *server;
    struct scope sc; /* owns `trusted` */
    const struct proxies *trusted;
    struct gate *gate;
    struct source listeners[2 * LISTEN_MAX];
    int listener_count;
    int port, ws_port;
    struct source wake;
    int epoll;
    pthread_t thread;
    bool is_started;
    _Atomic bool is_closing;
    /* the thread's own */
    struct visitor *oldest, *newest;
    int visitor_count;
    int64_t accept_again_ms; /* 0 = accepting */
    int64_t complained_ms;
    char peeked[HEAD_MAX_BYTES];
};

static void watch(struct door *d, struct source *s, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = s};
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, s->fd, &e) != 0)
        log_warning("epoll", log_text("problem", strerror(errno)));
}

/* Out of the list and of epoll; the descriptor is the caller's. */
static int let_go(struct door *d, struct visitor *v)
{
    int fd = v->source.fd;
    epoll_ctl(d->epoll, EPOLL_CTL_DEL, fd, NULL);
    if (v->prev)
        v->prev->next = v->next;
    else
        d->oldest = v->next;
    if (v->next)
        v->next->prev = v->prev;
    else
        d->newest = v->prev;
    d->visitor_count--;
    free(v);
    return fd;
}

static int let_oldest_go(struct door *d)
{
    assert(d->oldest && !d->oldest->prev);
    return let_go(d, d->oldest);
}

static const char *reason_of(int http)
{
    switch (http) {
    case 404:
        return "Not Found";
    case 408:
        return "Request Timeout";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return "Bad Request";
    }
}

/* Whose limit was passed, of how many. */
struct passed {
    const char *limit;
    int64_t most;
};

/* An answer to what no server gets to see. What the socket does not take at once is lost: nobody waits for strangers.
 * `passed`: of a 429, else NULL. */
static void answer_retry(int fd, int http, const char *detail, int retry_seconds, const struct passed *passed)
{
    char id[37], swallowed[4096];
    uuid_make(id);
    int64_t reset_at = clock_wall_ms() / 1000 + retry_seconds;
    scoped_text body = {0}, out = {0}, retry = {0};
    json_open(&body, NULL, '{');
    json_text(&body, "detail", detail);
    if (retry_seconds > 0)
        text_printf(&retry, "Retry-After: %d\r\n", retry_seconds);
    if (passed) {
        json_text(&body, "error", "rate_limit_exceeded");
        json_int(&body, "retry_after", retry_seconds);
        json_text(&body, "limit", passed->limit);
        text_printf(&retry, "X-RateLimit-Limit: %lld\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: %lld\r\n",
                    (long long)passed->most, (long long)reset_at);
    }
    scoped_text reference = {0};
    text_printf(&reference, "ERR-%s", id);
    json_text(&body, "reference", reference.data);
    json_close(&body, '}');
    text_printf(&out,
                "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: "
                "close\r\nX-Correlation-ID: %s\r\n"
                "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: "
                "strict-origin-when-cross-origin\r\n"
                "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n%s\r\n%s",
                http, reason_of(http), body.len, id, text_str(&retry), body.data);
    ssize_t sent = send(fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 16 && recv(fd, swallowed, sizeof swallowed, MSG_DONTWAIT) > 0; i++)
        continue; /* unread bytes would make the kernel reset the connection before the answer was read */
    close(fd);
    log_info("connection_refused", log_int("status", http), log_text("detail", detail));
}

static void answer_and_close(int fd, int http, const char *detail)
{
    answer_retry(fd, http, detail, http == 503 ? RETRY_SECONDS : 0, NULL);
}

static void complain(struct door *d, const char *problem)
{
    int64_t now = clock_monotonic_ms();
    if (d->complained_ms && now - d->complained_ms < COMPLAIN_MS)
        return;
    d->complained_ms = now;
    log_error("accept_paused", log_text("problem", problem), log_int("waiting", d->visitor_count));
}

/* No descriptor is left: the one who has been silent for longest goes, and the backlog waits. */
static void pause_accepting(struct door *d, const char *problem)
{
    complain(d, problem);
    if (d->oldest)
        close(let_oldest_go(d));
    for (int i = 0; i < d->listener_count; i++)
        epoll_ctl(d->epoll, EPOLL_CTL_DEL, d->listeners[i].fd, NULL);
    d->accept_again_ms = clock_monotonic_ms() + PAUSE_MS;
}

static void resume_accepting(struct door *d)
{
    d->accept_again_ms = 0;
    for (int i = 0; i < d->listener_count; i++)
        watch(d, &d->listeners[i], EPOLLIN);
}

static void add_visitor(struct door *d, int fd, const struct sockaddr_storage *address, socklen_t len, bool is_ws_port)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (d->visitor_count >= MAX_WAITING)
        close(let_oldest_go(d));
    struct visitor *v = must_calloc(1, sizeof *v);
    v->source = (struct source){SOURCE_VISITOR, fd, is_ws_port};
    v->address = *address;
    v->address_len = len;
    v->deadline_ms = clock_monotonic_ms() + SILENCE_MS;
    v->prev = d->newest;
    if (d->newest)
        d->newest->next = v;
    else
        d->oldest = v;
    d->newest = v;
    d->visitor_count++;
    watch(d, &v->source, EPOLLIN | EPOLLRDHUP | EPOLLET);
}

static void accept_some(struct door *d, const struct source *listener)
{
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage address = {0};
        socklen_t len = sizeof address;
        int fd = accept4(listener->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            add_visitor(d, fd, &address, len, listener->is_ws_port);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(d, strerror(errno));
            return;
        } /* else: that one connection is gone already */
    }
}

static void give_to_server(struct door *d, struct visitor *v)
{
    struct sockaddr_storage address = v->address;
    socklen_t len = v->address_len;
    server_adopt(d->server, let_go(d, v), (struct sockaddr *)&address, len);
}

static void let_in(struct door *d, const struct guest *guest)
{
    if (d->api->is_draining)
        answer_and_close(guest->fd, 503, "shutting down");
    else
        relay_adopt(d->api->relay, guest->fd, guest->head, guest->len, guest->refusal);
}

/* At the rate at which handshakes may begin. */
static void ask_gate(struct door *d, struct guest *guest)
{
    int retry_seconds = 0;
    const struct passed rate = {"too many new connections from this address",
                                d->api->settings->ws_connects_per_address};
    switch (gate_knock(d->gate, guest, clock_monotonic_us(), &retry_seconds)) {
    case GATE_PASS:
        let_in(d, guest);
        break;
    case GATE_WAIT:
        break;
    case GATE_BUSY:
        answer_retry(guest->fd, 503, "too many connect at once; try again", retry_seconds, NULL);
        break;
    case GATE_FLOOD:
        answer_retry(guest->fd, 429, "Rate limit exceeded", retry_seconds, &rate);
        break;
    }
}

static void let_waiting_in(struct door *d)
{
    struct guest guest;
    while (gate_next(d->gate, clock_monotonic_us(), &guest)) {
        let_in(d, &guest);
        free(guest.head);
    }
}

/* Takes the bytes that were looked at; what follows them stays in the socket. */
static void give_to_relay(struct door *d, struct visitor *v, const struct head *head, size_t peeked)
{
    struct scope sc;
    char peer[64];
    size_t len = 0;
    scope_init(&sc, NULL);
    address_text((struct sockaddr *)&v->address, peer);
    scoped_text forwarded = {0}; /* bounded by HEAD_MAX_BYTES */
    for (int n = 0;; n++) {
        const char *value = head_field(d->peeked, head, "X-Forwarded-For", n, &len);
        if (!value)
            break;
        address_join_forwarded(&forwarded, value, len);
    }
    struct guest guest = {.fd = let_go(d, v),
                          .head = d->peeked + head->start,
                          .len = peeked - head->start,
                          .address = address_of_client(&sc.arena, d->trusted, peer, forwarded.data)};
    ssize_t taken = recv(guest.fd, d->peeked, peeked, 0);
    if (taken != (ssize_t)peeked)
        close(guest.fd);
    else if (d->api->is_draining)
        answer_and_close(guest.fd, 503, "shutting down");
    else
        ask_gate(d, &guest);
    scope_done(&sc);
}

/* `has_ended`: the client sends no more. */
static void look_at(struct door *d, struct visitor *v, bool has_ended)
{
    struct head head = {0};
    ssize_t n = recv(v->source.fd, d->peeked, sizeof d->peeked, MSG_PEEK);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0) {
        close(let_go(d, v));
        return;
    }
    bool is_ws_port = v->source.is_ws_port;
    switch (head_parse(d->peeked, (size_t)n, &head)) {
    case HEAD_INCOMPLETE:
        if (has_ended)
            answer_and_close(let_go(d, v), 400, "the request head ends too early");
        break;
    case HEAD_BAD:
        answer_and_close(let_go(d, v), 400, "this is not an HTTP/1.1 request");
        break;
    case HEAD_TOO_LARGE:
        answer_and_close(let_go(d, v), 431, "the request head is too large");
        break;
    case HEAD_WEBSOCKET:
        give_to_relay(d, v, &head, (size_t)n);
        break;
    case HEAD_REST:
        if (is_ws_port)
            answer_and_close(let_go(d, v), 404, "this port serves WebSockets only");
        else
            give_to_server(d, v);
        break;
    }
}

/* Whoever began a request and did not end it is told so; whoever said nothing is not. */
static void send_away_the_silent(struct door *d)
{
    int64_t now = clock_monotonic_ms();
    while (d->oldest && d->oldest->deadline_ms <= now) {
        char byte;
        bool has_spoken = recv(d->oldest->source.fd, &byte, 1, MSG_PEEK) == 1;
        int fd = let_oldest_go(d);
        if (has_spoken)
            answer_and_close(fd, 408, "the request head took too long");
        else
            close(fd);
    }
}

static int wait_ms(const struct door *d)
{
    int64_t now = clock_monotonic_ms();
    int64_t at = d->oldest ? d->oldest->deadline_ms : 0;
    if (d->accept_again_ms && (!at || d->accept_again_ms < at))
        at = d->accept_again_ms;
    int wait = !at ? -1 : at > now ? (int)(at - now) + 1 : 0;
    int gate = gate_wait_ms(d->gate, clock_monotonic_us());
    return gate >= 0 && (wait < 0 || gate < wait) ? gate : wait;
}

/* Whose connection was made before the port closes, and whose request is here, is still served. */
static void let_the_last_in(struct door *d)
{
    for (int i = 0; i < d->listener_count; i++)
        accept_some(d, &d->listeners[i]);
    for (struct visitor *v = d->oldest, *next; v; v = next) {
        next = v->next;
        look_at(d, v, false);
    }
}

static void *keep_door(void *cls)
{
    struct door *d = cls;
    struct epoll_event events[EVENTS];
    while (!d->is_closing) {
        int n = epoll_wait(d->epoll, events, EVENTS, wait_ms(d));
        /* Visitors first: accepting may send the oldest of them away, and with it what an event names. */
        for (int i = 0; i < n; i++) {
            struct source *s = events[i].data.ptr;
            if (s->kind == SOURCE_VISITOR)
                look_at(d, (struct visitor *)s, events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
        }
        for (int i = 0; i < n; i++) {
            struct source *s = events[i].data.ptr;
            bool is_listener = s >= d->listeners && s < d->listeners + d->listener_count;
            if (is_listener)
                accept_some(d, s);
        }
        let_waiting_in(d);
        send_away_the_silent(d);
        if (d->accept_again_ms && clock_monotonic_ms() >= d->accept_again_ms)
            resume_accepting(d);
    }
    let_the_last_in(d);
    return NULL;
}

static enum status listen_all(struct scope *sc, struct door *d, int64_t port, bool is_ws_port, int *out_port)
{
    int fds[LISTEN_MAX], count = 0;
    enum status s = listen_open(sc, d->api->settings->api_host, port, fds, &count, out_port);
    for (int i = 0; i < count; i++)
        d->listeners[d->listener_count++] = (struct source){SOURCE_LISTENER, fds[i], is_ws_port};
    return s;
}

static enum status open_all(struct scope *sc, struct door *d)
{
    const struct settings *settings = d->api->settings;
    enum status s = proxies_parse(&d->sc, settings->trusted_proxies, &d->trusted);
    if (s != STATUS_OK)
        return fail(sc, s, "%s", d->sc.problem_text);
    s = listen_all(sc, d, settings->api_port, false, &d->port);
    if (s == STATUS_OK && settings->ws_port >= 0)
        s = listen_all(sc, d, settings->ws_port, true, &d->ws_port);
    if (s != STATUS_OK)
        return s;
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    d->wake = (struct source){SOURCE_WAKE, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), false};
    if (d->epoll < 0 || d->wake.fd < 0)
        return fail(sc, STATUS_NO_SPACE, "epoll: %s", strerror(errno));
    watch(d, &d->wake, EPOLLIN);
    resume_accepting(d);
    return STATUS_OK;
}

static enum status start_thread(struct scope *sc, struct door *d)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    d->is_started = pthread_create(&d->thread, &attributes, keep_door, d) == 0;
    pthread_attr_destroy(&attributes);
    return d->is_started ? STATUS_OK : fail(sc, STATUS_NO_SPACE, "cannot start a thread");
}

enum status door_open(struct scope *sc, struct api *api, struct server *server, struct door **out)
{
    struct door *d = must_calloc(1, sizeof *d);
    d->api = api;
    d->server = server;
    d->gate = gate_new(api->settings);
    d->epoll = d->wake.fd = -1;
    scope_init(&d->sc, NULL);
    enum status s = open_all(sc, d);
    if (s == STATUS_OK)
        s = start_thread(sc, d);
    if (s != STATUS_OK) {
        door_close(d);
        return s;
    }
    *out = d;
    return STATUS_OK;
}

int door_port(const struct door *d)
{
    return d->port;
}

int door_ws_port(const struct door *d)
{
    return d->ws_port;
}

void door_close(struct door *d)
{
    if (!d)
        return;
    d->is_closing = true;
    if (d->is_started) {
        ssize_t n = write(d->wake.fd, &(uint64_t){1}, sizeof(uint64_t));
        (void)n;
        pthread_join(d->thread, NULL);
    }
    while (d->oldest)
        close(let_oldest_go(d));
    for (int i = 0; i < d->listener_count; i++)
        close(d->listeners[i].fd);
    if (d->wake.fd >= 0)
        close(d->wake.fd);
    if (d->epoll >= 0)
        close(d->epoll);
    gate_free(d->gate);
    scope_done(&d->sc);
    free(d);
}
