#include "worker/embed/client.h"

#include "common/clock.h"
#include "common/text.h"
#include "worker/embed/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WAIT_STEP_MS = 100, RECONNECT_PAUSE_MS = 50 };

struct embed_client {
    struct sockaddr_un address;
    int fd; /* -1 = not connected */
    bool (*should_stop)(void *context);
    void *context;
};

struct embed_client *embed_client_new(const char *socket_path)
{
    struct embed_client *c = must_calloc(1, sizeof *c);
    c->address.sun_family = AF_UNIX;
    snprintf(c->address.sun_path, sizeof c->address.sun_path, "%s", socket_path);
    c->fd = -1;
    return c;
}

static void disconnect(struct embed_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

void embed_client_free(struct embed_client *c)
{
    if (!c)
        return;
    disconnect(c);
    free(c);
}

void embed_client_on_wait(struct embed_client *c, bool (*should_stop)(void *context), void *context)
{
    c->should_stop = should_stop;
    c->context = context;
}

/* How a step of the conversation went: on, the connection broke (try again), or stop with a status. */
enum step { STEP_OK, STEP_BROKEN, STEP_LATE, STEP_STOPPED };

static enum step wait_for(struct embed_client *c, short events, int64_t deadline_ms)
{
    for (;;) {
        if (c->should_stop && c->should_stop(c->context))
            return STEP_STOPPED;
        int64_t left = deadline_ms - clock_monotonic_ms();
        if (left <= 0)
            return STEP_LATE;
        struct pollfd p = {.fd = c->fd, .events = events};
        int n = poll(&p, 1, left < WAIT_STEP_MS ? (int)left : WAIT_STEP_MS);
        if (n > 0)
            return STEP_OK;
        if (n < 0 && errno != EINTR)
            return STEP_BROKEN;
    }
}

static enum step pause_for(struct embed_client *c, int64_t deadline_ms)
{
    if (c->should_stop && c->should_stop(c->context))
        return STEP_STOPPED;
    if (clock_monotonic_ms() + RECONNECT_PAUSE_MS >= deadline_ms)
        return STEP_LATE;
    poll(NULL, 0, RECONNECT_PAUSE_MS);
    return STEP_OK;
}

static bool connect_socket(struct embed_client *c)
{
    if (c->fd >= 0)
        return true;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd >= 0 && connect(c->fd, (struct sockaddr *)&c->address, sizeof c->address) == 0)
        return true;
    disconnect(c);
    return false;
}

static enum step send_all(struct embed_client *c, const char *bytes, size_t len, int64_t deadline_ms)
{
    while (len > 0) {
        ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            enum step s = wait_for(c, POLLOUT, deadline_ms);
            if (s != STEP_OK)
                return s;
        } else {
            return STEP_BROKEN;
        }
    }
    return STEP_OK;
}

static enum step receive_all(struct embed_client *c, void *out, size_t len, int64_t deadline_ms)
{
    for (char *p = out; len > 0;) {
        ssize_t n = recv(c->fd, p, len, MSG_DONTWAIT);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            enum step s = wait_for(c, POLLIN, deadline_ms);
            if (s != STEP_OK)
                return s;
        } else {
            return STEP_BROKEN;
        }
    }
    return STEP_OK;
}

static enum step try_once(struct scope *sc, struct embed_client *c, const struct text *request, int64_t deadline_ms,
                          struct wire_answer *out, char **out_body)
{
    if (!connect_socket(c))
        return STEP_BROKEN;
    struct wire_answer answer;
    enum step s = send_all(c, request->data, request->len, deadline_ms);
    if (s == STEP_OK)
        s = receive_all(c, &answer, sizeof answer, deadline_ms);
    if (s != STEP_OK)
        return s;
    if (answer.magic != WIRE_MAGIC || answer.body_bytes > WIRE_MAX_BODY_BYTES * 2u)
        return STEP_BROKEN;
    char *body = arena_alloc(&sc->arena, (size_t)answer.body_bytes + 1);
    s = receive_all(c, body, answer.body_bytes, deadline_ms);
    if (s != STEP_OK)
        return s;
    body[answer.body_bytes] = '\0';
    *out = answer;
    *out_body = body;
    return STEP_OK;
}

static enum status exchange(struct scope *sc, struct embed_client *c, const struct text *request, int timeout_ms,
                            struct wire_answer *out, char **out_body)
{
    int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
    enum step s;
    while ((s = try_once(sc, c, request, deadline_ms, out, out_body)) == STEP_BROKEN) {
        /* The embedder restarts; nothing of the batch was kept, so it is sent again. */
        disconnect(c);
        s = pause_for(c, deadline_ms);
        if (s != STEP_OK)
            break;
    }
    if (s == STEP_OK && out->status == STATUS_OK)
        return STATUS_OK;
    if (s == STEP_OK && out->status <= STATUS_CANCELLED)
        return fail(sc, (enum status)out->status, "%s", *out_body);
    disconnect(c); /* a late answer must not be taken for the next request's */
    if (s == STEP_STOPPED)
        return fail(sc, STATUS_CANCELLED, "told to stop while embedding");
    return fail(sc, STATUS_UNAVAILABLE, "the embedder gave no answer within %d ms", timeout_ms);
}

static enum status write_request(struct scope *sc, struct text *t, struct wire_request head, const char *model,
                                 const char *group, const struct embed_text *texts, size_t count)
{
    size_t body = 0;
    head.model_len = (uint8_t)(model ? strnlen(model, WIRE_MAX_NAME_BYTES) : 0);
    head.group_len = (uint8_t)(group ? strnlen(group, WIRE_MAX_NAME_BYTES) : 0);
    for (size_t i = 0; i < count; i++)
        body += sizeof(uint32_t) + texts[i].len;
    body += head.model_len + head.group_len;
    if (count > WIRE_MAX_TEXTS || body > WIRE_MAX_BODY_BYTES)
        return fail(sc, STATUS_TOO_LARGE, "at most %d texts and %d bytes at a time", WIRE_MAX_TEXTS,
                    WIRE_MAX_BODY_BYTES);
    head.magic = WIRE_MAGIC;
    head.body_bytes = (uint32_t)body;
    head.count = (uint32_t)count;
    text_append(t, &head, sizeof head);
    text_append(t, model ? model : "", head.model_len);
    text_append(t, group ? group : "", head.group_len);
    for (size_t i = 0; i < count; i++) {
        uint32_t len = (uint32_t)texts[i].len;
        text_append(t, &len, sizeof len);
        text_append(t, texts[i].bytes, texts[i].len);
    }
    return STATUS_OK;
}

enum status embed_client_run(struct scope *sc, struct embed_client *c, const char *model, enum embed_mode mode,
                             const char *group, const struct embed_text *texts, size_t count, int timeout_ms,
                             struct embed_answer *out, size_t *out_bad)
{
    scoped_text request = {0};
    struct wire_request head = {.kind = WIRE_EMBED, .is_query = mode == EMBED_QUERY};
    struct wire_answer answer = {.bad = UINT32_MAX};
    char *body = NULL;
    enum status s = write_request(sc, &request, head, model, group, texts, count);
    if (s == STATUS_OK)
        s = exchange(sc, c, &request, timeout_ms, &answer, &body);
    if (out_bad)
        *out_bad = answer.bad == UINT32_MAX ? SIZE_MAX : answer.bad;
    if (s != STATUS_OK)
        return s;
    size_t bytes = count * answer.dim * sizeof(float);
    if (answer.model_len > answer.body_bytes || answer.body_bytes - answer.model_len != bytes) {
        disconnect(c);
        return fail(sc, STATUS_INTERNAL, "the embedder's answer has the wrong size");
    }
    float *vectors = arena_alloc(&sc->arena, bytes);
    memcpy(vectors, body + answer.model_len, bytes);
    *out = (struct embed_answer){.model = arena_strndup(&sc->arena, body, answer.model_len),
                                 .dim = (int)answer.dim,
                                 .tokens = (int64_t)answer.tokens,
                                 .vectors = vectors};
    return STATUS_OK;
}

enum status embed_client_tokenize(struct scope *sc, struct embed_client *c, const char *model, bool is_uncut,
                                  const struct embed_text *texts, size_t count, int timeout_ms, struct token_ids **out)
{
    scoped_text request = {0};
    struct wire_request head = {.kind = WIRE_TOKENIZE, .is_uncut = is_uncut};
    struct wire_answer answer = {0};
    char *body = NULL;
    enum status s = write_request(sc, &request, head, model, NULL, texts, count);
    if (s == STATUS_OK)
        s = exchange(sc, c, &request, timeout_ms, &answer, &body);
    if (s != STATUS_OK)
        return s;
    struct token_ids *lists = arena_array(&sc->arena, count, sizeof *lists);
    const char *p = body, *end = body + answer.body_bytes;
    for (size_t i = 0; i < count; i++) {
        uint32_t n;
        if ((size_t)(end - p) < sizeof n)
            return fail(sc, STATUS_INTERNAL, "the embedder's answer has the wrong size");
        memcpy(&n, p, sizeof n);
        p += sizeof n;
        if ((size_t)(end - p) / sizeof(int32_t) < n)
            return fail(sc, STATUS_INTERNAL, "the embedder's answer has the wrong size");
        int32_t *ids = arena_alloc(&sc->arena, n * sizeof *ids);
        memcpy(ids, p, n * sizeof *ids);
        p += n * sizeof *ids;
        lists[i] = (struct token_ids){ids, n};
    }
    *out = lists;
    return STATUS_OK;
}

enum status embed_client_info(struct scope *sc, struct embed_client *c, int timeout_ms, const char **out_json)
{
    scoped_text request = {0};
    struct wire_answer answer = {0};
    char *body = NULL;
    enum status s = write_request(sc, &request, (struct wire_request){.kind = WIRE_INFO}, NULL, NULL, NULL, 0);
    if (s == STATUS_OK)
        s = exchange(sc, c, &request, timeout_ms, &answer, &body);
    if (s == STATUS_OK)
        *out_json = body;
    return s;
}
