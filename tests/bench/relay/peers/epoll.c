/* The yardstick: the least that a relay from Redis to WebSockets can do. One thread, one epoll, one subscription; a
 * message is framed once and shared; what waits for a connection goes in one write. No tokens, no rights, no limits, no
 * history, no heartbeats, no drain. A connection for which more than MOST_PENDING bytes wait is cut.
 *
 * epoll PORT REDIS_PORT      GET /ws/operations/{name} follows the channel operation:{name} */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    TABLE = 1 << 14,
    HEAD_BYTES = 8192,
    MOST_PENDING = 256 << 10,
    MOST_EVENTS = 1024,
    MOST_PIECES = 256,
    BACKLOG = 4096
};

struct frame {
    unsigned refs;
    size_t len;
    char bytes[];
};

struct connection {
    int fd;
    bool is_open, wants_write, is_dirty;
    struct channel *channel;
    size_t place; /* in the channel's list */
    struct frame **queue;
    unsigned first, count, capacity; /* a ring */
    size_t sent, pending;            /* of the first frame; of all */
    struct connection *next_dirty;
    char *head; /* until it is open */
    size_t head_len;
};

struct channel {
    struct channel *next;
    struct connection **list;
    size_t count, capacity;
    char name[80];
};

struct relay {
    int epoll, listener;
    redisContext *redis;
    struct channel *table[TABLE];
    struct connection *dirty;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *must(void *p)
{
    if (!p)
        die("memory");
    return p;
}

static struct channel *channel_of(struct relay *r, const char *name, bool may_make)
{
    uint32_t hash = 2166136261u;
    for (const char *s = name; *s; s++)
        hash = (hash ^ (unsigned char)*s) * 16777619u;
    struct channel **slot = &r->table[hash % TABLE];
    for (struct channel *c = *slot; c; c = c->next) {
        if (strcmp(c->name, name) == 0)
            return c;
    }
    if (!may_make)
        return NULL;
    struct channel *c = must(calloc(1, sizeof *c));
    snprintf(c->name, sizeof c->name, "%s", name);
    c->next = *slot;
    *slot = c;
    redisAppendCommand(r->redis, "SUBSCRIBE %s", name);
    return c;
}

static void watch(const struct relay *r, int operation, int fd, uint32_t events, void *data)
{
    struct epoll_event e = {.events = events, .data.ptr = data};
    epoll_ctl(r->epoll, operation, fd, &e);
}

static void frame_unref(struct frame *f)
{
    if (--f->refs == 0)
        free(f);
}

/* Memory of a connection that has gone stays until what is dirty was flushed. */
static void drop(struct connection *c)
{
    if (c->fd < 0)
        return;
    close(c->fd);
    c->fd = -1;
    for (; c->count > 0; c->count--, c->first = (c->first + 1) % c->capacity)
        frame_unref(c->queue[c->first]);
    if (c->channel) {
        struct connection *last = c->channel->list[--c->channel->count];
        c->channel->list[c->place] = last;
        last->place = c->place;
    }
    free(c->queue);
    free(c->head);
    c->queue = NULL;
    c->head = NULL;
    if (!c->is_dirty)
        free(c);
}

static void push(struct relay *r, struct connection *c, struct frame *f)
{
    if (c->count == c->capacity) {
        unsigned capacity = c->capacity ? c->capacity * 2 : 4;
        struct frame **queue = must(malloc(capacity * sizeof(struct frame *)));
        for (unsigned i = 0; i < c->count; i++)
            queue[i] = c->queue[(c->first + i) % c->capacity];
        free(c->queue);
        c->queue = queue;
        c->first = 0;
        c->capacity = capacity;
    }
    c->queue[(c->first + c->count++) % c->capacity] = f;
    f->refs++;
    c->pending += f->len;
    bool is_over = c->pending > MOST_PENDING; /* to be dropped there */
    if (!c->is_dirty && (!c->wants_write || is_over)) {
        c->is_dirty = true;
        c->next_dirty = r->dirty;
        r->dirty = c;
    }
}

/* False: the connection is of no use any more. */
static bool flush(const struct relay *r, struct connection *c)
{
    while (c->count > 0) {
        struct iovec pieces[MOST_PIECES];
        unsigned n = c->count < MOST_PIECES ? c->count : MOST_PIECES;
        for (unsigned i = 0; i < n; i++) {
            struct frame *f = c->queue[(c->first + i) % c->capacity];
            pieces[i] = (struct iovec){f->bytes, f->len};
        }
        pieces[0].iov_base = (char *)pieces[0].iov_base + c->sent;
        pieces[0].iov_len -= c->sent;
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = n};
        ssize_t written = n == 1 ? send(c->fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL)
                                 : sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (written < 0 && errno != EAGAIN)
            return false;
        if (written < 0)
            break;
        c->pending -= (size_t)written;
        size_t done = c->sent + (size_t)written;
        for (; c->count > 0 && done >= c->queue[c->first]->len; c->count--) {
            done -= c->queue[c->first]->len;
            frame_unref(c->queue[c->first]);
            c->first = (c->first + 1) % c->capacity;
        }
        c->sent = done;
    }
    if (c->pending > MOST_PENDING)
        return false;
    if ((c->count > 0) != c->wants_write) {
        c->wants_write = c->count > 0;
        watch(r, EPOLL_CTL_MOD, c->fd, c->wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
    }
    return true;
}

static void flush_dirty(struct relay *r)
{
    for (struct connection *c = r->dirty, *next; c; c = next) {
        next = c->next_dirty;
        c->is_dirty = false;
        if (c->fd < 0)
            free(c);
        else if (!flush(r, c))
            drop(c);
    }
    r->dirty = NULL;
}

static void publish(struct relay *r, const char *name, const char *json, size_t len)
{
    const struct channel *channel = channel_of(r, name, false);
    if (!channel || channel->count == 0)
        return;
    struct frame *f = must(malloc(sizeof *f + len + 10));
    unsigned char *p = (unsigned char *)f->bytes;
    *p++ = 0x81;
    if (len < 126) {
        *p++ = (unsigned char)len;
    } else if (len < 65536) {
        *p++ = 126;
        *p++ = (unsigned char)(len >> 8);
        *p++ = (unsigned char)len;
    } else {
        *p++ = 127;
        for (int i = 56; i >= 0; i -= 8)
            *p++ = (unsigned char)((uint64_t)len >> i);
    }
    memcpy(p, json, len);
    f->len = (size_t)((char *)p - f->bytes) + len;
    f->refs = 1;
    for (size_t i = 0; i < channel->count; i++)
        push(r, channel->list[i], f);
    frame_unref(f);
}

static void redis_readable(struct relay *r)
{
    void *reply = NULL;
    if (redisBufferRead(r->redis) != REDIS_OK)
        die("Redis went away");
    while (redisGetReplyFromReader(r->redis, &reply) == REDIS_OK && reply) {
        const redisReply *m = reply;
        if (m->type == REDIS_REPLY_ARRAY && m->elements == 3 && m->element[2]->type == REDIS_REPLY_STRING)
            publish(r, m->element[1]->str, m->element[2]->str, m->element[2]->len);
        freeReplyObject(reply);
    }
}

static void send_control(const struct connection *c, int opcode, const char *payload, size_t len)
{
    char frame[127] = {(char)(0x80 | opcode), (char)len};
    memcpy(frame + 2, payload, len);
    ssize_t n = send(c->fd, frame, len + 2, MSG_NOSIGNAL);
    (void)n;
}

/* Clients only send small control frames here. */
static void take_frames(struct connection *c, char *bytes, size_t len)
{
    while (len >= 6) {
        int opcode = bytes[0] & 0x0F;
        size_t size = (size_t)(bytes[1] & 0x7F);
        if (size > 125 || len < 6 + size)
            return;
        for (size_t i = 0; i < size; i++)
            bytes[6 + i] = (char)(bytes[6 + i] ^ bytes[2 + (i & 3)]);
        if (opcode == 9)
            send_control(c, 10, bytes + 6, size);
        if (opcode == 8) {
            send_control(c, 8, bytes + 6, size < 2 ? 0 : 2);
            drop(c);
            return;
        }
        bytes += 6 + size;
        len -= 6 + size;
    }
}

static bool shake_hands(struct relay *r, struct connection *c)
{
    static const char key_name[] = "Sec-WebSocket-Key: ", magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char name[70] = "", seed[100], channel[80], answer[200];
    unsigned char digest[EVP_MAX_MD_SIZE], accept[64];
    unsigned digest_len = 0;
    const char *key = strcasestr(c->head, key_name);
    if (!key || sscanf(c->head, "GET /ws/operations/%64[^ ?]", name) != 1)
        return false;
    int n = snprintf(seed, sizeof seed, "%.24s%s", key + sizeof key_name - 1, magic);
    EVP_Digest(seed, (size_t)n, digest, &digest_len, EVP_sha1(), NULL);
    EVP_EncodeBlock(accept, digest, (int)digest_len);
    n = snprintf(answer, sizeof answer,
                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                 "Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                 accept);
    if (send(c->fd, answer, (size_t)n, MSG_NOSIGNAL) != n)
        return false;
    snprintf(channel, sizeof channel, "operation:%s", name);
    struct channel *to = channel_of(r, channel, true);
    if (to->count == to->capacity) {
        to->capacity = to->capacity ? to->capacity * 2 : 4;
        to->list = must(realloc(to->list, to->capacity * sizeof(struct connection *)));
    }
    c->place = to->count;
    to->list[to->count++] = c;
    c->channel = to;
    c->is_open = true;
    free(c->head);
    c->head = NULL;
    return true;
}

static void readable(struct relay *r, struct connection *c)
{
    char bytes[HEAD_BYTES];
    ssize_t n = recv(c->fd, bytes, sizeof bytes - 1, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            drop(c);
        return;
    }
    if (c->is_open) {
        take_frames(c, bytes, (size_t)n);
        return;
    }
    c->head = must(realloc(c->head, c->head_len + (size_t)n + 1));
    memcpy(c->head + c->head_len, bytes, (size_t)n);
    c->head_len += (size_t)n;
    c->head[c->head_len] = '\0';
    if (c->head_len > HEAD_BYTES || (strstr(c->head, "\r\n\r\n") && !shake_hands(r, c)))
        drop(c);
}

static void accept_all(struct relay *r)
{
    int fd, on = 1;
    while ((fd = accept4(r->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = must(calloc(1, sizeof *c));
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(r, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

static void listen_on(struct relay *r, int port)
{
    int on = 1;
    struct sockaddr_in self = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(r->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(r->listener, (struct sockaddr *)&self, sizeof self) != 0 || listen(r->listener, BACKLOG) != 0)
        die("listen");
    watch(r, EPOLL_CTL_ADD, r->listener, EPOLLIN, &r->listener);
}

int main(int argc, char **argv)
{
    static struct relay r;
    struct rlimit files;
    if (argc != 3)
        return 2;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    r.epoll = epoll_create1(EPOLL_CLOEXEC);
    r.redis = redisConnect("127.0.0.1", atoi(argv[2]));
    if (!r.redis || r.redis->err)
        die("Redis");
    fcntl(r.redis->fd, F_SETFL, O_NONBLOCK);
    r.redis->flags &= ~REDIS_BLOCK;
    watch(&r, EPOLL_CTL_ADD, r.redis->fd, EPOLLIN, &r.redis);
    listen_on(&r, atoi(argv[1]));
    for (;;) {
        struct epoll_event events[MOST_EVENTS];
        int count = epoll_wait(r.epoll, events, MOST_EVENTS, -1), is_written = 0;
        for (int i = 0; i < count; i++) {
            void *at = events[i].data.ptr;
            struct connection *c = at;
            if (at == &r.listener)
                accept_all(&r);
            else if (at == &r.redis)
                redis_readable(&r);
            else if (events[i].events & EPOLLOUT && !flush(&r, c))
                drop(c);
            else if (events[i].events & ~(uint32_t)EPOLLOUT)
                readable(&r, c);
        }
        flush_dirty(&r);
        while (!is_written && redisBufferWrite(r.redis, &is_written) == REDIS_OK && !is_written)
            ; /* SUBSCRIBEs: a few bytes */
    }
}
