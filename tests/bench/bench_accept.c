/* How many operations a second the API accepts: keep-alive connections, each with one request in flight, adding a
 * source to the next collection of a list. One thread on epoll, so that the load takes little from the machine that is
 * measured.
 *
 * bench_accept PORT TOKEN FOLDER CONNECTIONS SECONDS <UUIDS
 * Prints: accepted, seconds, requests refused, median and 99th percentile of the latency in microseconds. */
#include "common/arena.h"
#include "common/clock.h"
#include "common/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { UUID_LEN = 36, ANSWER_BYTES = 16384, MOST_CONNECTIONS = 1024 };

struct connection {
    int fd;
    int64_t sent_us;
    size_t len;
    char answer[ANSWER_BYTES];
};

struct load {
    const char *token, *folder;
    int port, epoll;
    char *uuids; /* UUID_LEN characters each, without separators */
    size_t uuid_count, next;
    int64_t *latencies;
    size_t accepted, refused;
    int64_t deadline_us;
    int open;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_accept: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_uuids(struct load *l)
{
    char line[128];
    size_t cap = 0;
    while (fgets(line, sizeof line, stdin)) {
        if (strlen(line) < UUID_LEN)
            continue;
        if (l->uuid_count == cap) {
            cap = cap ? cap * 2 : 1024;
            l->uuids = must_realloc(l->uuids, cap * UUID_LEN);
        }
        memcpy(l->uuids + l->uuid_count++ * UUID_LEN, line, UUID_LEN);
    }
    l->latencies = must_malloc((l->uuid_count + 1) * sizeof *l->latencies);
}

static int connect_to(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* The next request; false when the list or the time is at its end. */
static bool send_next(struct load *l, struct connection *c)
{
    if (l->next >= l->uuid_count || clock_monotonic_us() > l->deadline_us)
        return false;
    scoped_text body = {0};
    scoped_text head = {0};
    text_printf(&body, "{\"source_type\":\"directory\",\"source_config\":{\"path\":\"%s\"},\"source_path\":\"%s\"}",
                l->folder, l->folder);
    text_printf(&head,
                "POST /api/v2/collections/%.*s/sources HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                UUID_LEN, l->uuids + l->next++ * UUID_LEN, l->port, l->token, body.len, text_str(&body));
    c->len = 0;
    c->sent_us = clock_monotonic_us();
    /* A request is far smaller than a socket's buffer. */
    if (send(c->fd, head.data, head.len, MSG_NOSIGNAL) != (ssize_t)head.len)
        die("send");
    return true;
}

/* Length of the whole answer; 0 = its head is not there yet. */
static size_t answer_length(const struct connection *c)
{
    const char *end = memmem(c->answer, c->len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    const char *length = strcasestr(c->answer, "content-length:");
    return (size_t)(end + 4 - c->answer) + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
}

static void take_answer(struct load *l, const struct connection *c)
{
    if (strncmp(c->answer, "HTTP/1.1 202", 12) == 0) {
        l->latencies[l->accepted++] = clock_monotonic_us() - c->sent_us;
    } else if (l->refused++ == 0) {
        fprintf(stderr, "bench_accept: the first refusal: %.300s\n", c->answer);
    }
}

static void serve(struct load *l, struct connection *c)
{
    ssize_t n = recv(c->fd, c->answer + c->len, sizeof c->answer - 1 - c->len, 0);
    if (n <= 0)
        die("recv");
    c->len += (size_t)n;
    c->answer[c->len] = '\0';
    size_t whole = answer_length(c);
    if (whole == 0 || c->len < whole)
        return;
    take_answer(l, c);
    if (!send_next(l, c)) {
        close(c->fd);
        l->open--;
    }
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void run(struct load *l, int connections, int seconds)
{
    struct connection *all = must_malloc((size_t)connections * sizeof *all);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->deadline_us = clock_monotonic_us() + seconds * INT64_C(1000000);
    for (int i = 0; i < connections; i++) {
        all[i].fd = connect_to(l->port);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, all[i].fd, &event) != 0)
            die("epoll_ctl");
        l->open++;
        if (!send_next(l, &all[i])) {
            close(all[i].fd);
            l->open--;
        }
    }
    while (l->open > 0) {
        struct epoll_event events[64];
        int n = epoll_wait(l->epoll, events, 64, 30000);
        if (n == 0 || (n < 0 && errno != EINTR))
            die("no answer for 30 s");
        for (int i = 0; i < n; i++)
            serve(l, events[i].data.ptr);
    }
    close(l->epoll);
    free(all);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fputs("bench_accept PORT TOKEN FOLDER CONNECTIONS SECONDS <UUIDS\n", stderr);
        return 2;
    }
    struct load l = {.port = atoi(argv[1]), .token = argv[2], .folder = argv[3]};
    int connections = atoi(argv[4]);
    if (connections < 1 || connections > MOST_CONNECTIONS)
        connections = 8;
    read_uuids(&l);
    int64_t begun = clock_monotonic_us();
    run(&l, connections, atoi(argv[5]));
    double seconds = (double)(clock_monotonic_us() - begun) / 1e6;
    qsort(l.latencies, l.accepted, sizeof *l.latencies, compare);
    printf("%zu %.3f %zu %lld %lld\n", l.accepted, seconds, l.refused,
           l.accepted ? (long long)l.latencies[l.accepted / 2] : 0LL,
           l.accepted ? (long long)l.latencies[l.accepted * 99 / 100] : 0LL);
    free(l.uuids);
    free(l.latencies);
    return l.accepted == 0;
}
