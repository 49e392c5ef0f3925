/* What the machine gives to anyone: the plainest loop in C over a Redis list that still keeps a taken job in a second
 * list until it is done. No product: no lease, no retry, no database. `floor produce COUNT RATE`, or `floor work`.
 * BENCH_VARIANT `plain` waits for each answer (two round trips a job), `one write` sends the acknowledgement of a job
 * with the wish for the next. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define QUEUE "floor:queue"
#define TAKEN "floor:taken"
enum { BULK = 200, JOB_BYTES = 64, BUFFER_BYTES = 65536 };

struct connection {
    int fd;
    size_t from, to, out_len; /* unread part of `in`; unsent part of `out` */
    char in[BUFFER_BYTES], out[BUFFER_BYTES];
};

static _Noreturn void end(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void flush(struct connection *c)
{
    for (size_t sent = 0; sent < c->out_len;) {
        ssize_t n = write(c->fd, c->out + sent, c->out_len - sent);
        if (n < 0)
            end("Redis cannot be written to");
        sent += (size_t)n;
    }
    c->out_len = 0;
}

static void command(struct connection *c, size_t count, const char *const *words)
{
    char *at = c->out + c->out_len, *limit = c->out + sizeof c->out;
    at += snprintf(at, (size_t)(limit - at), "*%zu\r\n", count);
    for (size_t i = 0; i < count; i++)
        at += snprintf(at, (size_t)(limit - at), "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
    c->out_len = (size_t)(at - c->out);
}

static char *read_line(struct connection *c)
{
    for (;;) {
        char *stop = memchr(c->in + c->from, '\n', c->to - c->from);
        if (stop) {
            char *line = c->in + c->from;
            stop[-1] = '\0';
            c->from = (size_t)(stop + 1 - c->in);
            return line;
        }
        memmove(c->in, c->in + c->from, c->to - c->from);
        c->to -= c->from;
        c->from = 0;
        ssize_t n = read(c->fd, c->in + c->to, sizeof c->in - c->to);
        if (n <= 0)
            end("Redis has gone");
        c->to += (size_t)n;
    }
}

/* The answer's text: of a status, a number or a string. */
static char *answer(struct connection *c)
{
    char *line = read_line(c);
    if (line[0] == '-') {
        fprintf(stderr, "floor: Redis says %s\n", line);
        exit(1);
    }
    return line[0] == '$' && line[1] != '-' ? read_line(c) : line;
}

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "floor: %s is not set\n", name);
        exit(1);
    }
    return value;
}

static void open_redis(struct connection *c)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    where.sin_port = htons((uint16_t)atoi(setting("BENCH_REDIS_PORT")));
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&where, sizeof where) != 0)
        end("Redis cannot be reached");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    command(c, 2, (const char *[]){"AUTH", setting("BENCH_REDIS_PASSWORD")});
    command(c, 2, (const char *[]){"SELECT", setting("BENCH_REDIS_DB")});
    flush(c);
    answer(c);
    answer(c);
}

static void wait_until(int64_t at_ns)
{
    struct timespec t = {.tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void produce(struct connection *c, int count, int rate)
{
    int64_t begun = now_ns(CLOCK_MONOTONIC);
    for (int i = 0, due = 0; i < count; i++) {
        char job[JOB_BYTES];
        if (rate)
            wait_until(begun + i * INT64_C(1000000000) / rate);
        snprintf(job, sizeof job, "%d %lld", i, (long long)now_ns(CLOCK_REALTIME));
        command(c, 3, (const char *[]){"LPUSH", QUEUE, job});
        due++;
        if (rate || due == BULK || i + 1 == count) {
            flush(c);
            for (; due > 0; due--)
                answer(c);
        }
    }
}

static void ask(struct connection *c)
{
    command(c, 6, (const char *[]){"BLMOVE", QUEUE, TAKEN, "RIGHT", "LEFT", "0"});
}

static void work(struct connection *c, bool is_one_write)
{
    int record = open(setting("BENCH_RECORD"), O_WRONLY | O_APPEND);
    if (record < 0)
        end("the record cannot be opened");
    ask(c);
    flush(c);
    for (;;) {
        char job[JOB_BYTES], line[2 * JOB_BYTES];
        snprintf(job, sizeof job, "%s", answer(c));
        int n = snprintf(line, sizeof line, "%s %lld\n", job, (long long)now_ns(CLOCK_REALTIME));
        if (write(record, line, (size_t)n) != n)
            end("the record cannot be written");
        command(c, 4, (const char *[]){"LREM", TAKEN, "1", job});
        if (!is_one_write) {
            flush(c);
            answer(c);
        }
        ask(c);
        flush(c);
        if (is_one_write)
            answer(c);
    }
}

int main(int argc, char **argv)
{
    static struct connection c;
    open_redis(&c);
    if (argc == 4 && strcmp(argv[1], "produce") == 0)
        produce(&c, atoi(argv[2]), atoi(argv[3]));
    else
        work(&c, strcmp(setting("BENCH_VARIANT"), "one write") == 0);
    return 0;
}
