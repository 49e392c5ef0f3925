/* watch: thousands of WebSocket clients in one process, which believe nothing. They follow numbered events, reconnect
 * as they are told to, resume, and say what was wrong.
 *
 *     watch PLAN.json
 *
 * The plan: {"ports":[…],"seed":1,"groups":[{"count":…,"path":"/ws/operations/…","token":…}]}. A group may have
 *
 * - "key": the member of an event's data that counts events from 0 without a hole ("n"); "flat": processed_files
 *   instead, which must never go back
 * - "from_now": true: the first event may be any (else it is number 0)
 * - "life_ms": [least, most] until a client ends its connection by itself; [0, 0] = never
 * - "endings": of them "close", "rst", "half" (it falls silent, and is closed after three seconds)
 * - "band_percent": so many of the reconnects say where they were by {"type":"resume"}, the others by ?last_id=
 * - "pause_ms": [least, most] before a reconnect
 * - "read": "all", "stop" (nothing after the handshake), "drip" (a byte a second); "receive_buffer": SO_RCVBUF
 * - "is_coalesced": numbers may be left out (but never come twice, or out of order)
 *
 * Lines on standard input: `last GROUP NUMBER` (a client that has this number is finished), `read` (everyone reads; who
 * was cut comes back), `report`, `quit`. A report is one line: an array
 * with one object a group.
 *
 * What is checked of each frame: no reserved bits, known opcode, not masked, whole, the shortest form of the length,
 * control frames short, text valid UTF-8 (and now and then JSON), a valid close code. */
#include "common/clock.h"
#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PORTS = 8, MAX_GROUPS = 256, MAX_WRONG = 5, TURN_MS = 10, HALF_OPEN_MS = 3000, HALF_OPEN = 8192 };
enum { READ_ALL, READ_STOP, READ_DRIP };
enum { END_CLOSE = 1, END_RST = 2, END_HALF = 4 };
enum { NOT_CONNECTED, CONNECTING, SHAKING, CONNECTED, WAITS_FOR_READ };
enum { FROM_NOW = -2 };
#define KEY_SENT "dGhlIHNhbXBsZSBub25jZQ=="
#define KEY_ACCEPTED "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

struct range {
    int least, most;
};

struct group {
    int count, endings, band_percent, read, receive_buffer;
    bool is_flat, from_now, is_coalesced;
    const char *path, *token;
    char key[32];
    struct range life, pause;
    int64_t last; /* -1 = not known yet */
    long connects, ends, cuts, refusals, truncated, frames, events, closed[5000];
    int64_t longest_stop_ms, shortest_stop_ms;
    int wrong_count;
    char *wrong[MAX_WRONG];
};

struct client {
    struct group *group;
    int number, fd, state, read;
    char last_id[64];
    int64_t seen;       /* what it has without a hole; its id is last_id */
    int64_t here;       /* the last number on this connection while it is not settled */
    int64_t rewound_to; /* a resume may take it back to what follows this, once; -1 = none */
    bool is_settled;    /* where this connection goes on is clear */
    bool may_jump, is_finished;
    int64_t due_ms, since_ms;
    unsigned char *in;
    size_t len, capacity;
};

struct watch {
    int epoll;
    int ports[MAX_PORTS], port_count;
    struct group groups[MAX_GROUPS];
    int group_count;
    struct client *clients;
    int client_count;
    struct {
        int fd;
        int64_t until_ms;
    } half[HALF_OPEN];
    int half_count;
    uint64_t random;
    int64_t bucket_ms;
    int in_bucket, most_in_bucket;
};

static uint32_t draw(struct watch *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return below ? (uint32_t)(w->random >> 33) % below : 0;
}

static int64_t within(struct watch *w, struct range r)
{
    return r.least + (int64_t)draw(w, (uint32_t)(r.most - r.least + 1));
}

static void wrong(struct client *c, const char *what, int64_t a, int64_t b)
{
    struct group *g = c->group;
    if (g->wrong_count++ >= MAX_WRONG)
        return;
    struct text t = {0};
    text_printf(&t, "client %d of %s: %s (%lld, %lld; settled %d)", c->number, g->path, what, (long long)a,
                (long long)b, c->is_settled);
    g->wrong[g->wrong_count - 1] = text_take(&t);
}

static void listen_for(struct watch *w, struct client *c, uint32_t events, int operation)
{
    struct epoll_event e = {.events = events | EPOLLRDHUP, .data.ptr = c};
    epoll_ctl(w->epoll, operation, c->fd, &e);
}

/* ---- beginning and end of a connection ---- */

static void leave(struct client *c, int64_t pause_ms)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = NOT_CONNECTED;
    c->len = 0;
    c->due_ms = clock_monotonic_ms() + pause_ms;
}

static void leave_for_a_while(struct watch *w, struct client *c)
{
    leave(c, within(w, c->group->pause));
}

static void begin(struct watch *w, struct client *c)
{
    int port = w->ports[draw(w, (uint32_t)w->port_count)];
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        wrong(c, "no socket", errno, 0);
        c->due_ms = clock_monotonic_ms() + 1000;
        return;
    }
    if (c->group->receive_buffer && c->read != READ_ALL)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &c->group->receive_buffer, sizeof(int));
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS) {
        c->group->refusals++;
        leave(c, 50 + draw(w, 100));
        return;
    }
    c->state = CONNECTING;
    listen_for(w, c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_frame(struct client *c, int opcode, const char *payload, size_t len)
{
    unsigned char out[256] = {(unsigned char)(0x80 | opcode), (unsigned char)(0x80 | len)};
    if (len > 125)
        return;
    memcpy(out + 6, payload, len); /* a mask of zeros is a mask */
    ssize_t n = send(c->fd, out, 6 + len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n;
}

static void shake(struct watch *w, struct client *c)
{
    struct group *g = c->group;
    scoped_text head = {0};
    bool is_first = !c->last_id[0], in_band = !is_first && (int)draw(w, 100) < g->band_percent;
    text_printf(&head, "GET %s%s", g->path, g->is_flat ? "?format=flat" : "");
    if (!in_band && (!is_first || !g->from_now))
        text_printf(&head, "%clast_id=%s", g->is_flat ? '&' : '?', is_first ? "0" : c->last_id);
    text_printf(
        &head,
        " HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " KEY_SENT
        "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: access_token.%s\r\n\r\n",
        g->token);
    if (send(c->fd, head.data, head.len, MSG_NOSIGNAL) != (ssize_t)head.len) {
        g->refusals++;
        leave(c, 50 + draw(w, 100));
        return;
    }
    c->is_settled = !in_band;
    c->here = -1;
    c->rewound_to = in_band ? c->seen : -1;
    c->state = SHAKING;
    listen_for(w, c, EPOLLIN, EPOLL_CTL_MOD);
}

static void end_itself(struct watch *w, struct client *c)
{
    struct group *g = c->group;
    int ending = 1 << draw(w, 3);
    while (!(g->endings & ending))
        ending = ending == END_HALF ? END_CLOSE : ending << 1;
    g->ends++;
    if (ending == END_CLOSE) {
        send_frame(c, 8, "\x03\xe8", 2);
    } else if (ending == END_RST) {
        struct linger linger = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    } else if (w->half_count < HALF_OPEN) {
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, c->fd, NULL);
        w->half[w->half_count].fd = c->fd;
        w->half[w->half_count++].until_ms = clock_monotonic_ms() + HALF_OPEN_MS;
        c->fd = -1;
    }
    leave_for_a_while(w, c);
}

/* The other side ended it. */
static void was_ended(struct watch *w, struct client *c)
{
    struct group *g = c->group;
    if (c->state == CONNECTED) {
        g->cuts++;
    } else {
        g->refusals++;
        leave(c, 50 + draw(w, 200));
        return;
    }
    int64_t stopped_ms = clock_monotonic_ms() - c->since_ms;
    leave_for_a_while(w, c);
    if (c->read == READ_ALL)
        return;
    c->state = WAITS_FOR_READ;
    g->longest_stop_ms = stopped_ms > g->longest_stop_ms ? stopped_ms : g->longest_stop_ms;
    g->shortest_stop_ms = stopped_ms < g->shortest_stop_ms || !g->shortest_stop_ms ? stopped_ms : g->shortest_stop_ms;
}

/* ---- what comes ---- */

static const char *find(const char *json, size_t len, const char *name)
{
    const char *at = memmem(json, len, name, strlen(name));
    return at ? at + strlen(name) : NULL;
}

static void take_number(struct client *c, int64_t n, const char *id, size_t id_len)
{
    struct group *g = c->group;
    bool is_next = c->seen == FROM_NOW || n == c->seen + 1 || (g->is_coalesced && n > c->seen) ||
                   (g->is_flat && n >= c->seen);
    if (!c->is_settled && n != c->seen + 1 && !c->may_jump) {
        if (c->here >= 0 && n != c->here + 1 && !g->is_coalesced)
            wrong(c, "out of order before the resume", c->here, n);
        c->here = n;
        return;
    }
    if (!is_next && !c->may_jump) {
        bool is_rewound = c->rewound_to >= 0 && n == c->rewound_to + 1;
        if (!is_rewound)
            wrong(c, "after, came", c->seen, n);
        c->rewound_to = -1;
    }
    g->events++;
    c->is_settled = true;
    c->may_jump = false;
    c->seen = n;
    if (id && id_len < sizeof c->last_id) {
        memcpy(c->last_id, id, id_len);
        c->last_id[id_len] = '\0';
    }
}

static void take_text(struct client *c, const char *json, size_t len)
{
    struct group *g = c->group;
    if (++g->frames % 64 == 0) {
        struct scope sc;
        scope_init(&sc, NULL);
        scoped(cJSON) *parsed = NULL;
        if (json_parse(&sc, json, len, &parsed) != STATUS_OK)
            wrong(c, "a text that is no JSON", (int64_t)len, 0);
        scope_done(&sc);
    }
    if (find(json, len, "\"type\":\"history_truncated\"")) {
        g->truncated++;
        c->may_jump = true;
        return;
    }
    const char *id = find(json, len, "\"id\":\""), *number = find(json, len, g->key);
    size_t id_len = id ? strcspn(id, "\"") : 0;
    if (number)
        take_number(c, strtoll(number, NULL, 10), id, id_len);
    if (g->is_flat && find(json, len, "\"type\":\"operation_completed\""))
        c->is_finished = true;
}

static bool is_close_code(int code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code < 5000);
}

/* False = the connection is over. */
static bool take_frame(struct watch *w, struct client *c, int opcode, unsigned char *payload, size_t len)
{
    if (opcode == 1) {
        if (utf8_floor((const char *)payload, len, len) != len || !utf8_is_valid((const char *)payload, len))
            wrong(c, "not UTF-8", (int64_t)len, 0);
        unsigned char kept = payload[len];
        payload[len] = '\0';
        take_text(c, (const char *)payload, len);
        payload[len] = kept;
        return true;
    }
    if (opcode == 9) {
        send_frame(c, 10, (const char *)payload, len);
        return true;
    }
    if (opcode == 10)
        return true;
    if (opcode != 8) {
        wrong(c, "opcode", opcode, 0);
        return true;
    }
    int code = len >= 2 ? payload[0] << 8 | payload[1] : 1005;
    if (!is_close_code(code))
        wrong(c, "close code", code, 0);
    if (code < 5000)
        c->group->closed[code]++;
    if (code == 1008)
        wrong(c, "refused", code, 0);
    send_frame(c, 8, (const char *)payload, len >= 2 ? 2 : 0);
    leave_for_a_while(w, c);
    return false;
}

/* Bytes of the first whole frame; 0 = it is not whole. */
static size_t whole_frame(struct client *c, size_t at, size_t *out_head)
{
    const unsigned char *p = c->in + at;
    size_t have = c->len - at, head = 2;
    if (have < 2)
        return 0;
    uint64_t len = p[1] & 127;
    if (len >= 126) {
        size_t more = len == 126 ? 2 : 8;
        if (have < 2 + more)
            return 0;
        len = 0;
        for (size_t i = 0; i < more; i++)
            len = len << 8 | p[2 + i];
        if (len < (more == 2 ? 126 : 65536))
            wrong(c, "a length in a longer form than needed", (int64_t)len, (int64_t)more);
        head += more;
    }
    if (!(p[0] & 0x80) || (p[0] & 0x70) || (p[1] & 0x80))
        wrong(c, "bits of a frame", p[0], p[1]);
    if ((p[0] & 8) && len > 125)
        wrong(c, "a long control frame", p[0], (int64_t)len);
    *out_head = head;
    return have < head + len ? 0 : head + (size_t)len;
}

static bool take_answer(struct watch *w, struct client *c, size_t *out_used)
{
    const char *in = (const char *)c->in, *end = memmem(in, c->len, "\r\n\r\n", 4);
    if (!end)
        return true;
    *out_used = (size_t)(end - in) + 4;
    if (strncmp(in, "HTTP/1.1 101 ", 13) != 0 || !memmem(in, c->len, KEY_ACCEPTED, strlen(KEY_ACCEPTED))) {
        c->group->refusals++;
        if (strncmp(in, "HTTP/1.1 503", 12) != 0 && strncmp(in, "HTTP/1.1 429", 12) != 0)
            wrong(c, "an answer that is none of 101, 429, 503", strtol(in + 9, NULL, 10), 0);
        leave(c, 200 + draw(w, 300));
        return false;
    }
    int64_t now = clock_monotonic_ms();
    if (now / 1000 != w->bucket_ms / 1000)
        w->in_bucket = 0;
    w->bucket_ms = now;
    if (++w->in_bucket > w->most_in_bucket)
        w->most_in_bucket = w->in_bucket;
    c->group->connects++;
    c->state = CONNECTED;
    c->since_ms = now;
    c->due_ms = c->group->life.most ? now + within(w, c->group->life) : INT64_MAX;
    if (!c->is_settled) {
        char message[128];
        int n = snprintf(message, sizeof message, "{\"type\":\"resume\",\"last_id\":\"%s\"}", c->last_id);
        send_frame(c, 1, message, (size_t)n);
    }
    if (c->read != READ_ALL)
        listen_for(w, c, 0, EPOLL_CTL_MOD);
    return true;
}

static void take_bytes(struct watch *w, struct client *c)
{
    size_t used = 0, head = 0;
    if (c->state == SHAKING && !take_answer(w, c, &used))
        return;
    for (size_t n; c->state == CONNECTED && (n = whole_frame(c, used, &head)) > 0; used += n) {
        if (!take_frame(w, c, c->in[used] & 15, c->in + used + head, n - head))
            return;
    }
    memmove(c->in, c->in + used, c->len - used);
    c->len -= used;
    if (c->group->last >= 0 && c->seen >= c->group->last)
        c->is_finished = true;
}

static void read_some(struct watch *w, struct client *c, size_t most)
{
    if (c->capacity - c->len < 16384) {
        c->capacity = c->capacity ? c->capacity * 2 : 32768;
        c->in = must_realloc(c->in, c->capacity + 1);
    }
    size_t room = c->capacity - c->len;
    ssize_t n = recv(c->fd, c->in + c->len, room < most ? room : most, MSG_DONTWAIT);
    if (n > 0) {
        c->len += (size_t)n;
        take_bytes(w, c);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        was_ended(w, c);
    }
}

static void on_ready(struct watch *w, struct client *c, uint32_t events)
{
    if (c->fd < 0)
        return;
    if (c->state == CONNECTING) {
        if (events & (EPOLLERR | EPOLLHUP))
            was_ended(w, c);
        else
            shake(w, c);
    } else if (c->state == CONNECTED && c->read != READ_ALL) {
        if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
            was_ended(w, c);
    } else {
        read_some(w, c, SIZE_MAX);
    }
}

/* ---- time, commands ---- */

static void on_due(struct watch *w, struct client *c, int64_t now)
{
    if (c->state == CONNECTED && c->read == READ_DRIP && now - c->since_ms >= 1000) {
        int64_t since = c->since_ms;
        read_some(w, c, 1);
        if (c->state == CONNECTED)
            c->since_ms = since + 1000;
        return;
    }
    if (now < c->due_ms)
        return;
    if (c->state == NOT_CONNECTED)
        begin(w, c);
    else if (c->state == CONNECTED && !c->is_finished)
        end_itself(w, c);
}

static void turn(struct watch *w)
{
    int64_t now = clock_monotonic_ms();
    for (int i = 0; i < w->client_count; i++)
        on_due(w, &w->clients[i], now);
    for (int i = 0; i < w->half_count; i++) {
        if (w->half[i].until_ms > now)
            continue;
        close(w->half[i].fd);
        w->half[i--] = w->half[--w->half_count];
    }
}

static void everyone_reads(struct watch *w)
{
    for (int i = 0; i < w->client_count; i++) {
        struct client *c = &w->clients[i];
        if (c->read == READ_ALL)
            continue;
        c->read = READ_ALL;
        if (c->state == CONNECTED)
            listen_for(w, c, EPOLLIN, EPOLL_CTL_MOD);
        if (c->state == WAITS_FOR_READ)
            leave(c, draw(w, 500));
    }
}

static void report(struct watch *w)
{
    scoped_text t = {0};
    json_open(&t, NULL, '[');
    for (int i = 0; i < w->group_count; i++) {
        const struct group *g = &w->groups[i];
        int connected = 0, finished = 0, cut = 0;
        int64_t least = INT64_MAX;
        for (int k = 0; k < w->client_count; k++) {
            const struct client *c = &w->clients[k];
            if (c->group != g)
                continue;
            connected += c->state == CONNECTED;
            finished += c->is_finished || (g->last >= 0 && c->seen >= g->last);
            cut += c->state == WAITS_FOR_READ;
            least = c->seen < least ? c->seen : least;
        }
        json_open(&t, NULL, '{');
        json_int(&t, "count", g->count);
        json_int(&t, "connected", connected);
        json_int(&t, "finished", finished);
        json_int(&t, "stopped_and_cut", cut);
        json_int(&t, "least_seen", least);
        json_int(&t, "connects", g->connects);
        json_int(&t, "ends", g->ends);
        json_int(&t, "cuts", g->cuts);
        json_int(&t, "refusals", g->refusals);
        json_int(&t, "truncated", g->truncated);
        json_int(&t, "frames", g->frames);
        json_int(&t, "events", g->events);
        json_int(&t, "shortest_stop_ms", g->shortest_stop_ms);
        json_int(&t, "longest_stop_ms", g->longest_stop_ms);
        json_int(&t, "most_connects_a_second", w->most_in_bucket);
        json_open(&t, "closed", '{');
        for (int code = 0; code < (int)array_len(g->closed); code++) {
            char name[16];
            snprintf(name, sizeof name, "%d", code);
            if (g->closed[code])
                json_int(&t, name, g->closed[code]);
        }
        json_close(&t, '}');
        json_int(&t, "wrong_count", g->wrong_count);
        json_open(&t, "wrong", '[');
        for (int k = 0; k < g->wrong_count && k < MAX_WRONG; k++)
            json_text(&t, NULL, g->wrong[k]);
        json_close(&t, ']');
        json_close(&t, '}');
    }
    json_close(&t, ']');
    puts(t.data);
    fflush(stdout);
}

/* False = quit. */
static bool obey(struct watch *w, const char *line)
{
    int group;
    long long number;
    if (sscanf(line, "last %d %lld", &group, &number) == 2 && group >= 0 && group < w->group_count)
        w->groups[group].last = number;
    else if (strcmp(line, "read") == 0)
        everyone_reads(w);
    else if (strcmp(line, "report") == 0)
        report(w);
    else if (strcmp(line, "quit") == 0)
        return false;
    return true;
}

static bool read_commands(struct watch *w)
{
    static char buffer[4096];
    static size_t len;
    ssize_t n = read(STDIN_FILENO, buffer + len, sizeof buffer - 1 - len);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    len += (size_t)n;
    for (char *end; (end = memchr(buffer, '\n', len));) {
        *end = '\0';
        bool goes_on = obey(w, buffer);
        len -= (size_t)(end + 1 - buffer);
        memmove(buffer, end + 1, len);
        if (!goes_on)
            return false;
    }
    return true;
}

/* ---- the plan ---- */

static struct range range_of(const cJSON *group, const char *name)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(group, name);
    const cJSON *least = cJSON_GetArrayItem(list, 0), *most = cJSON_GetArrayItem(list, 1);
    return list ? (struct range){least->valueint, most->valueint} : (struct range){0, 0};
}

static int endings_of(const cJSON *group)
{
    int all = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(group, "endings"))
    {
        all |= strcmp(item->valuestring, "close") == 0 ? END_CLOSE
               : strcmp(item->valuestring, "rst") == 0 ? END_RST
                                                       : END_HALF;
    }
    return all ? all : END_CLOSE;
}

static void add_group(struct watch *w, const cJSON *plan)
{
    struct group *g = &w->groups[w->group_count++];
    const char *key = json_get_text(plan, "key", "n"), *read = json_get_text(plan, "read", "all");
    *g = (struct group){
        .count = (int)json_get_int(plan, "count", 1),
        .endings = endings_of(plan),
        .band_percent = (int)json_get_int(plan, "band_percent", 0),
        .read = strcmp(read, "stop") == 0   ? READ_STOP
                : strcmp(read, "drip") == 0 ? READ_DRIP
                                            : READ_ALL,
        .receive_buffer = (int)json_get_int(plan, "receive_buffer", 0),
        .is_flat = strcmp(key, "flat") == 0,
        .from_now = json_get_bool(plan, "from_now", false),
        .is_coalesced = json_get_bool(plan, "is_coalesced", false),
        .path = json_get_text(plan, "path", ""),
        .token = json_get_text(plan, "token", ""),
        .life = range_of(plan, "life_ms"),
        .pause = range_of(plan, "pause_ms"),
        .last = -1,
    };
    snprintf(g->key, sizeof g->key, "\"%s\":", g->is_flat ? "processed_files" : key);
    w->clients = must_realloc(w->clients, (size_t)(w->client_count + g->count) * sizeof(struct client));
    for (int i = 0; i < g->count; i++) {
        w->clients[w->client_count++] = (struct client){
            .group = g, .number = i, .fd = -1, .read = g->read, .seen = g->from_now ? FROM_NOW : -1, .rewound_to = -1};
    }
}

static void make_plan(struct watch *w, const cJSON *plan)
{
    const cJSON *item;
    w->random = (uint64_t)json_get_int(plan, "seed", 1);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(plan, "ports"))
    {
        if (w->port_count < MAX_PORTS)
            w->ports[w->port_count++] = item->valueint;
    }
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(plan, "groups"))
    {
        if (w->group_count < MAX_GROUPS)
            add_group(w, item);
    }
    int64_t now = clock_monotonic_ms(), spread = w->client_count / 2 + 1;
    for (int i = 0; i < w->client_count; i++)
        w->clients[i].due_ms = now + draw(w, (uint32_t)spread);
}

static void run(struct watch *w)
{
    struct epoll_event events[256];
    int64_t next = 0;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    listen_for(w, &(struct client){.fd = STDIN_FILENO}, EPOLLIN, EPOLL_CTL_ADD);
    struct epoll_event own = {.events = EPOLLIN};
    epoll_ctl(w->epoll, EPOLL_CTL_MOD, STDIN_FILENO, &own);
    for (;;) {
        int n = epoll_wait(w->epoll, events, array_len(events), TURN_MS);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_ready(w, events[i].data.ptr, events[i].events);
            else if (!read_commands(w))
                return;
        }
        int64_t now = clock_monotonic_ms();
        if (now >= next) {
            next = now + TURN_MS;
            turn(w);
        }
    }
}

int main(int argc, char **argv)
{
    static struct watch w;
    struct scope sc;
    struct rlimit limit;
    scope_init(&sc, NULL);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    char *text = NULL;
    size_t capacity = 0;
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    ssize_t len = file ? getdelim(&text, &capacity, '\0', file) : -1;
    cJSON *plan = NULL;
    if (len < 0 || json_parse(&sc, text, (size_t)len, &plan) != STATUS_OK) {
        fputs("watch: a plan is needed\n", stderr);
        return 2;
    }
    w.epoll = epoll_create1(EPOLL_CLOEXEC);
    make_plan(&w, plan);
    run(&w);
    report(&w);
    return 0;
}
