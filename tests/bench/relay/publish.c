/* publish: events at a steady rate, as the worker publishes them (through the script, with history) or as plain
 * messages with the same bytes, for servers that keep no history. Each carries the mark of load_frames.h. Operations
 * are the lines "OPERATION_UUID USER_ID COLLECTION_UUID" of a file; they get their events in turn.
 *
 * publish FILE script|plain|socketio|http PAD_BYTES [PORT]
 *   run RATE COUNT       COUNT events, RATE a second (0 = as fast as it goes); answers with one line of JSON
 *   quit
 * socketio: in the envelope of its Redis adapter. http: POST /pub/{operation} to the port, one after another.
 * Needs REDIS_URL. While Redis is away (script only) an event is tried again until it is through. */
#include "tests/bench/relay/load_frames.h"

#include "common/arena.h"
#include "common/clock.h"
#include "common/message.h"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_AT_ONCE = 256, MOST_PAD = 64 << 10 };

struct operation {
    char id[37], collection[37];
    int64_t user_id;
};

struct publisher {
    struct operation *operations;
    size_t count;
    struct redis *redis;   /* script */
    redisContext *context; /* plain */
    bool is_socketio;
    int http; /* a socket; -1 = none */
    char *pad;
    uint64_t published, tried_again;
};

static void die(const char *what)
{
    fprintf(stderr, "publish: %s\n", what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void read_operations(struct publisher *p, const char *file)
{
    FILE *in = fopen(file, "r");
    struct operation o;
    long long user;
    if (!in)
        die("the file of operations cannot be read");
    while (fscanf(in, "%36s %lld %36s", o.id, &user, o.collection) == 3) {
        o.user_id = user;
        p->operations = must_realloc(p->operations, (p->count + 1) * sizeof o);
        p->operations[p->count++] = o;
    }
    fclose(in);
    if (p->count == 0)
        die("the file of operations is empty");
}

static struct event event_of(struct scope *sc, const struct publisher *p, uint64_t index, uint64_t sent_ns)
{
    size_t channel = (size_t)(index % p->count);
    const struct operation *o = &p->operations[channel];
    return (struct event){
        .type = "document_failed", /* never replaced by a newer one */
        .operation_id = o->id,
        .collection_id = o->collection,
        .user_id = o->user_id,
        .status = "processing",
        .progress = 12.5,
        .attempt = 1,
        .data_json = arena_printf(&sc->arena, "{\"mark\":\"" LOAD_MARK "\",\"pad\":\"%s\"}",
                                  (unsigned)(index / p->count) + 1, (unsigned)channel, (unsigned long long)sent_ns,
                                  p->pad),
    };
}

static void publish_by_script(struct publisher *p, size_t count)
{
    struct event events[MOST_AT_ONCE];
    enum status each[MOST_AT_ONCE];
    size_t left = count;
    while (left > 0) {
        struct scope sc;
        scope_init(&sc, NULL);
        uint64_t sent = now_ns();
        for (size_t i = 0; i < left; i++)
            events[i] = event_of(&sc, p, p->published + i, sent);
        enum status s = message_publish_many(&sc, p->redis, events, left, each);
        size_t done = 0;
        while (done < left && s != STATUS_INVALID && each[done] == STATUS_OK)
            done++;
        p->published += done;
        left -= done;
        scope_done(&sc);
        if (left > 0) {
            p->tried_again++;
            usleep(20000);
        }
    }
}

/* What the script would publish, with an id as long. */
static const char *message_of(struct scope *sc, const struct publisher *p, uint64_t index, struct text *json)
{
    char now[28];
    clock_iso(now);
    const struct event event = event_of(sc, p, index, now_ns());
    text_clear(json);
    message_write(json, &event, now);
    return arena_printf(&sc->arena, "{\"id\":\"5f0c9a1be2d34467-%013llu-0\",%s", (unsigned long long)index + 1,
                        json->data + 1);
}

/* The envelope of Socket.IO's Redis adapter: MessagePack of [sender, packet, options]. */
static void put_msgpack_text(struct text *out, const char *s, size_t len)
{
    unsigned char head[3] = {0xDA, (unsigned char)(len >> 8), (unsigned char)len};
    text_append(out, (const char *)head, sizeof head);
    text_append(out, s, len);
}

static void put_literal(struct text *out, const char *bytes)
{
    text_append(out, bytes, strlen(bytes));
}

static void put_envelope(struct text *out, const char *room, const char *message)
{
    text_clear(out);
    put_literal(out, "\x93\xA7"
                     "emitter\x83\xA4"
                     "type\x02\xA4"
                     "data\x92\xA5"
                     "event");
    put_msgpack_text(out, message, strlen(message));
    put_literal(out, "\xA3"
                     "nsp\xA1/\x83\xA5"
                     "rooms\x91");
    put_msgpack_text(out, room, strlen(room));
    put_literal(out, "\xA6"
                     "except\x90\xA5"
                     "flags\x80");
}

static void publish_plainly(struct publisher *p, size_t count)
{
    scoped_text json = {0}, envelope = {0};
    for (size_t i = 0; i < count; i++) {
        struct scope sc;
        scope_init(&sc, NULL);
        const char *id = p->operations[(p->published + i) % p->count].id,
                   *message = message_of(&sc, p, p->published + i, &json);
        if (p->is_socketio) {
            put_envelope(&envelope, id, message);
            redisAppendCommand(p->context, "PUBLISH socket.io#/#%s# %b", id, envelope.data, envelope.len);
        } else {
            redisAppendCommand(p->context, "PUBLISH operation:%s %b", id, message, strlen(message));
        }
        scope_done(&sc);
    }
    for (size_t i = 0; i < count; i++) {
        redisReply *reply = NULL;
        if (redisGetReply(p->context, (void **)&reply) != REDIS_OK)
            die("Redis went away");
        freeReplyObject(reply);
    }
    p->published += count;
}

/* One answer: its head, and as many bytes as it says; what follows is kept. */
static void take_answer(int fd, char *bytes, size_t room, size_t *len)
{
    for (;;) {
        bytes[*len] = '\0';
        const char *end = strstr(bytes, "\r\n\r\n"), *said = strcasestr(bytes, "content-length:");
        size_t size = end ? (size_t)(end + 4 - bytes) + (said && said < end ? (size_t)atoi(said + 15) : 0) : 0;
        if (size && *len >= size) {
            if (strncmp(bytes, "HTTP/1.1 20", 11) != 0)
                die("an event was refused");
            *len -= size;
            memmove(bytes, bytes + size, *len);
            return;
        }
        ssize_t n = recv(fd, bytes + *len, room - 1 - *len, 0);
        if (n <= 0)
            die("the server went away");
        *len += (size_t)n;
    }
}

static void publish_by_http(struct publisher *p, size_t count)
{
    scoped_text json = {0}, request = {0};
    char answer[8192];
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        struct scope sc;
        scope_init(&sc, NULL);
        const char *message = message_of(&sc, p, p->published, &json);
        text_clear(&request);
        text_printf(&request, "POST /pub/%s HTTP/1.1\r\nHost: bench\r\nContent-Length: %zu\r\n\r\n%s",
                    p->operations[p->published % p->count].id, strlen(message), message);
        if (send(p->http, request.data, request.len, MSG_NOSIGNAL) != (ssize_t)request.len)
            die("the server went away");
        take_answer(p->http, answer, sizeof answer, &len);
        p->published++;
        scope_done(&sc);
    }
}

static void run(struct publisher *p, double rate, uint64_t count)
{
    uint64_t started = now_ns(), done = 0, latest = 0;
    p->tried_again = 0;
    while (done < count) {
        uint64_t now = now_ns(), due = rate > 0 ? (uint64_t)((double)(now - started) * rate / 1e9) + 1 : count;
        due = due < count ? due : count;
        if (due == done) {
            uint64_t at = started + (uint64_t)((double)done * 1e9 / rate) + 1;
            struct timespec until = {(time_t)(at / 1000000000ULL), (long)(at % 1000000000ULL)};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
            continue;
        }
        uint64_t behind = rate > 0 ? now - started - (uint64_t)((double)done * 1e9 / rate) : 0;
        latest = behind > latest && behind < now ? behind : latest;
        size_t batch = due - done < MOST_AT_ONCE ? (size_t)(due - done) : MOST_AT_ONCE;
        if (p->redis)
            publish_by_script(p, batch);
        else if (p->http >= 0)
            publish_by_http(p, batch);
        else
            publish_plainly(p, batch);
        done += batch;
    }
    printf("{\"published\":%llu,\"total\":%llu,\"seconds\":%.4f,\"latest_ms\":%.1f,\"tried_again\":%llu}\n",
           (unsigned long long)count, (unsigned long long)p->published, (double)(now_ns() - started) / 1e9,
           (double)latest / 1e6, (unsigned long long)p->tried_again);
    fflush(stdout);
}

static void connect_http(struct publisher *p, int port)
{
    int on = 1;
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    p->http = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(p->http, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(p->http, (struct sockaddr *)&to, sizeof to) != 0)
        die("the server is not there");
}

static void connect_redis(struct publisher *p, const char *how)
{
    const char *url = getenv("REDIS_URL");
    char host[64] = "";
    int port = 0;
    if (!url)
        die("REDIS_URL is not set");
    if (strcmp(how, "script") == 0) {
        p->redis = redis_new(&(struct redis_options){.url = url});
        return;
    }
    p->is_socketio = strcmp(how, "socketio") == 0;
    if (sscanf(url, "redis://%63[^:]:%d", host, &port) == 2)
        p->context = redisConnect(host, port);
    if (!p->context || p->context->err)
        die("Redis is not there");
}

int main(int argc, char **argv)
{
    struct publisher p = {.http = -1};
    char line[256];
    if (argc < 4)
        die("publish FILE script|plain|socketio|http PAD_BYTES [PORT]");
    size_t pad = (size_t)atoi(argv[3]);
    p.pad = must_calloc(1, (pad < MOST_PAD ? pad : MOST_PAD) + 1);
    memset(p.pad, 'x', pad < MOST_PAD ? pad : MOST_PAD);
    read_operations(&p, argv[1]);
    if (strcmp(argv[2], "http") == 0 && argc > 4)
        connect_http(&p, atoi(argv[4]));
    else
        connect_redis(&p, argv[2]);
    while (fgets(line, sizeof line, stdin)) {
        double rate;
        unsigned long long count;
        if (sscanf(line, "run %lf %llu", &rate, &count) == 2)
            run(&p, rate, count);
        else
            break;
    }
    redis_free(p.redis);
    if (p.context)
        redisFree(p.context);
    return 0;
}
