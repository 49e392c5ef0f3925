#include "common/redis.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/message.h"
#include "common/password.h"
#include "common/sentinel.h"

#include <ctype.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    DEFAULT_PORT = 6379,
    DEFAULT_TIMEOUT_MS = 1000,
    FIRST_PAUSE_MS = 50,
    LONGEST_PAUSE_MS = 2000,
    KNOWN_SCRIPTS = 8
};

struct redis {
    char *host; /* or the path of a Unix socket */
    char *user, *password;
    char *prefix;
    struct sentinels *sentinels; /* who is asked for host and port; NULL = they stand */
    int port, database, timeout_ms;
    bool is_unix;
    redisContext *context;
    int64_t retry_at_ms, pause_ms; /* no new try before */
    int64_t heard_ms;
    struct {
        const char *script; /* by address: scripts are constants */
        char sha1[41];
    } scripts[KNOWN_SCRIPTS];
};

char *redis_url_decoded(const char *s, size_t len)
{
    char *out = must_malloc(len + 1), *p = out;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '%' && i + 2 < len && isxdigit((unsigned char)s[i + 1]) && isxdigit((unsigned char)s[i + 2])) {
            *p++ = (char)strtol((char[]){s[i + 1], s[i + 2], '\0'}, NULL, 16);
            i += 2;
        } else {
            *p++ = s[i];
        }
    }
    *p = '\0';
    return out;
}

static void parse_authority(struct redis *r, const char *s, size_t len)
{
    const char *at = memrchr(s, '@', len);
    if (at) {
        const char *colon = memchr(s, ':', (size_t)(at - s));
        if (colon) {
            r->user = colon > s ? redis_url_decoded(s, (size_t)(colon - s)) : NULL;
            r->password = redis_url_decoded(colon + 1, (size_t)(at - colon - 1));
        } else {
            r->password = redis_url_decoded(s, (size_t)(at - s));
        }
        len -= (size_t)(at + 1 - s);
        s = at + 1;
    }
    bool is_v6 = len > 0 && *s == '[';
    const char *end = is_v6 ? memchr(s, ']', len) : NULL;
    const char *colon = end ? (end + 1 < s + len && end[1] == ':' ? end + 1 : NULL) : memchr(s, ':', len);
    const char *host = end ? s + 1 : s;
    size_t host_len = end ? (size_t)(end - s - 1) : colon ? (size_t)(colon - s) : len;
    r->host = host_len ? redis_url_decoded(host, host_len) : must_strdup("127.0.0.1");
    r->port = colon ? atoi(colon + 1) : DEFAULT_PORT;
}

struct redis *redis_new(const struct redis_options *o)
{
    struct redis *r = must_calloc(1, sizeof *r);
    r->prefix = must_strdup(o->prefix ? o->prefix : "");
    r->database = o->database;
    r->timeout_ms = o->timeout_ms ? o->timeout_ms : DEFAULT_TIMEOUT_MS;
    const char *rest = strstr(o->url, "://");
    if (strncmp(o->url, "unix://", 7) == 0) {
        r->is_unix = true;
        r->host = must_strdup(o->url + 7);
        return r;
    }
    rest = rest ? rest + 3 : o->url;
    if (sentinels_are_meant(o->url))
        r->sentinels = sentinels_new(o->url);
    parse_authority(r, rest, strcspn(rest, "/?"));
    return r;
}

static void disconnect(struct redis *r)
{
    if (r->context)
        redisFree(r->context);
    r->context = NULL;
}

void redis_free(struct redis *r)
{
    if (!r)
        return;
    disconnect(r);
    sentinels_free(r->sentinels);
    free(r->host);
    free(r->user);
    free(r->password);
    free(r->prefix);
    free(r);
}

struct redis_address redis_address(const struct redis *r)
{
    return (struct redis_address){.host = r->host,
                                  .port = r->port,
                                  .is_unix = r->is_unix,
                                  .user = r->user,
                                  .password = r->password,
                                  .sentinels = r->sentinels};
}

const char *redis_key(struct scope *sc, const struct redis *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *name = arena_vprintf(&sc->arena, format, args);
    va_end(args);
    return *r->prefix ? arena_printf(&sc->arena, "%s%s", r->prefix, name) : name;
}

static struct timeval as_timeval(int ms)
{
    return (struct timeval){ms / 1000, ms % 1000 * 1000};
}

static enum status give_up(struct scope *sc, struct redis *r, const char *why)
{
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
    (void)n;
    enum status s = fail(sc, STATUS_UNAVAILABLE, "Redis: %s", why); /* `why` may lie in the context */
    disconnect(r);
    r->pause_ms = r->pause_ms ? (r->pause_ms * 2 < LONGEST_PAUSE_MS ? r->pause_ms * 2 : LONGEST_PAUSE_MS)
                              : FIRST_PAUSE_MS;
    r->retry_at_ms = clock_monotonic_ms() + r->pause_ms / 2 + random % (uint32_t)(r->pause_ms / 2 + 1);
    return s;
}

/* An ordinary command during the set-up of a connection. */
static bool set_up(struct redis *r, int argc, const char **argv)
{
    redisReply *reply = redisCommandArgv(r->context, argc, argv, NULL);
    bool is_ok = reply && reply->type != REDIS_REPLY_ERROR;
    if (reply)
        freeReplyObject(reply);
    return is_ok;
}

static bool is_primary(struct redis *r)
{
    scoped(redisReply) *reply = redisCommand(r->context, "ROLE");
    return redis_reply_is_primary(reply);
}

/* Nothing is owed to us between two commands: what can be read then is the end of a connection that the server (or
 * something in between) closed. Better seen now than after a command was sent, when nobody can tell whether it ran. */
static bool is_alive(const struct redis *r)
{
    struct pollfd p = {.fd = r->context->fd, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

static enum status connect_now(struct scope *sc, struct redis *r)
{
    if (r->context && is_alive(r))
        return STATUS_OK;
    disconnect(r);
    if (clock_monotonic_ms() < r->retry_at_ms)
        return fail(sc, STATUS_UNAVAILABLE, "Redis is away");
    struct timeval timeout = as_timeval(r->timeout_ms);
    const char *host = r->host;
    int port = r->port;
    if (r->sentinels && sentinels_find_primary(sc, r->sentinels, r->timeout_ms, &host, &port) != STATUS_OK)
        return give_up(sc, r, arena_strdup(&sc->arena, sc->problem_text));
    r->context = r->is_unix ? redisConnectUnixWithTimeout(host, timeout) : redisConnectWithTimeout(host, port, timeout);
    if (!r->context)
        return give_up(sc, r, "no memory for a connection");
    if (r->context->err)
        return give_up(sc, r, r->context->errstr);
    fcntl(r->context->fd, F_SETFD, FD_CLOEXEC);
    redisSetTimeout(r->context, timeout);
    if (!r->is_unix)
        redisEnableKeepAlive(r->context);
    if (r->password) {
        const char *with_user[] = {"AUTH", r->user, r->password}, *alone[] = {"AUTH", r->password};
        if (!set_up(r, r->user ? 3 : 2, r->user ? with_user : alone))
            return give_up(sc, r, "the user or password of REDIS_URL is refused");
    }
    char database[16];
    snprintf(database, sizeof database, "%d", r->database);
    const char *select[] = {"SELECT", database};
    if (r->database > 0 && !set_up(r, 2, select))
        return give_up(sc, r, "the database cannot be selected");
    /* The sentinels may not know yet that it is none any more. */
    if (r->sentinels && !is_primary(r))
        return give_up(sc, r, "the server that the sentinels named is no primary");
    r->pause_ms = 0;
    return STATUS_OK;
}

/* Faults of the server's state pass; the others are ours. */
static bool is_passing(const char *error)
{
    static const char *const kinds[] = {"LOADING", "READONLY", "OOM",         "MASTERDOWN", "NOREPLICAS", "MISCONF",
                                        "BUSY",    "TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED",  "UNKILLABLE"};
    /* Before version 7 an error within a script came wrapped: ERR Error running script (…): …: -OOM … */
    const char *wrapped = strncmp(error, "ERR Error running script", 24) == 0 ? strstr(error, " -") : NULL;
    const char *kind = wrapped ? wrapped + 2 : error;
    for (size_t i = 0; i < array_len(kinds); i++) {
        if (strncmp(kind, kinds[i], strlen(kinds[i])) == 0)
            return true;
    }
    return false;
}

/* The server is no longer the one to talk to: the next connection may find another one at the address. */
static bool is_demoted(const char *error)
{
    return strstr(error, "READONLY") || strstr(error, "MASTERDOWN") || strncmp(error, "UNBLOCKED", 9) == 0;
}

static enum status take_reply(struct scope *sc, struct redis *r, void *reply, redisReply **out)
{
    scoped(redisReply) *answer = reply;
    if (!answer)
        return give_up(sc, r, r->context && r->context->errstr[0] ? r->context->errstr : "no answer in time");
    r->heard_ms = clock_monotonic_ms();
    if (answer->type == REDIS_REPLY_ERROR) {
        if (is_passing(answer->str) && is_demoted(answer->str))
            return give_up(sc, r, answer->str);
        if (is_passing(answer->str))
            return fail(sc, STATUS_UNAVAILABLE, "Redis: %s", answer->str);
        return fail(sc, STATUS_INTERNAL, "Redis: %s", answer->str);
    }
    if (out) {
        *out = answer;
        answer = NULL;
    }
    return STATUS_OK;
}

static enum status run_list(struct scope *sc, struct redis *r, redisReply **out, const char *format, va_list args)
{
    enum status s = connect_now(sc, r);
    return s == STATUS_OK ? take_reply(sc, r, redisvCommand(r->context, format, args), out) : s;
}

enum status redis_run(struct scope *sc, struct redis *r, redisReply **out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    enum status s = run_list(sc, r, out, format, args);
    va_end(args);
    return s;
}

enum status redis_run_argv(struct scope *sc, struct redis *r, redisReply **out, int argc, const char **argv,
                           const size_t *lengths)
{
    enum status s = connect_now(sc, r);
    return s == STATUS_OK ? take_reply(sc, r, redisCommandArgv(r->context, argc, argv, lengths), out) : s;
}

enum status redis_run_blocking(struct scope *sc, struct redis *r, int wait_ms, redisReply **out, const char *format,
                               ...)
{
    enum status s = connect_now(sc, r);
    if (s != STATUS_OK)
        return s;
    redisSetTimeout(r->context, as_timeval(wait_ms + r->timeout_ms));
    va_list args;
    va_start(args, format);
    s = run_list(sc, r, out, format, args);
    va_end(args);
    if (r->context)
        redisSetTimeout(r->context, as_timeval(r->timeout_ms));
    return s;
}

enum status redis_send(struct scope *sc, struct redis *r, int argc, const char **argv)
{
    /* Answers may be waiting on a connection that is used this way: that they can be read says nothing about its end.
     */
    enum status s = r->context ? STATUS_OK : connect_now(sc, r);
    if (s != STATUS_OK)
        return s;
    int is_sent = 0;
    if (redisAppendCommandArgv(r->context, argc, argv, NULL) != REDIS_OK)
        return give_up(sc, r, r->context->errstr);
    while (!is_sent) {
        if (redisBufferWrite(r->context, &is_sent) != REDIS_OK)
            return give_up(sc, r, r->context->errstr);
    }
    return STATUS_OK;
}

enum status redis_receive(struct scope *sc, struct redis *r, redisReply **out)
{
    void *reply = NULL;
    *out = NULL;
    if (!r->context)
        return fail(sc, STATUS_UNAVAILABLE, "Redis is away");
    if (redisGetReplyFromReader(r->context, &reply) != REDIS_OK)
        return give_up(sc, r, r->context->errstr);
    struct pollfd p = {.fd = r->context->fd, .events = POLLIN};
    if (!reply && poll(&p, 1, 0) > 0) {
        if (redisBufferRead(r->context) != REDIS_OK || redisGetReplyFromReader(r->context, &reply) != REDIS_OK)
            return give_up(sc, r, r->context->errstr);
    }
    return reply ? take_reply(sc, r, reply, out) : STATUS_OK;
}

void redis_drop(struct redis *r)
{
    struct scope sc;
    scope_init(&sc, NULL);
    (void)give_up(&sc, r, "no answer in time");
    scope_done(&sc);
}

static const char *script_sha1(struct redis *r, const char *script)
{
    for (int i = 0; i < KNOWN_SCRIPTS; i++) {
        if (r->scripts[i].script == script)
            return r->scripts[i].sha1;
        if (r->scripts[i].script)
            continue;
        r->scripts[i].script = script;
        sha1_hex(script, strlen(script), r->scripts[i].sha1);
        return r->scripts[i].sha1;
    }
    return NULL;
}

enum status redis_script(struct scope *sc, struct redis *r, const char *script, int keys, int argc, const char **argv,
                         const size_t *lengths, redisReply **out)
{
    enum status s = connect_now(sc, r);
    if (s != STATUS_OK)
        return s;
    const char **all = arena_array(&sc->arena, (size_t)argc + 3, sizeof *all);
    size_t *sizes = arena_array(&sc->arena, (size_t)argc + 3, sizeof *sizes);
    const char *sha1 = script_sha1(r, script);
    all[0] = sha1 ? "EVALSHA" : "EVAL";
    all[1] = sha1 ? sha1 : script;
    all[2] = arena_printf(&sc->arena, "%d", keys);
    for (int i = 0; i < argc; i++) {
        all[i + 3] = argv[i];
        sizes[i + 3] = lengths ? lengths[i] : strlen(argv[i]);
    }
    for (int i = 0; i < 3; i++)
        sizes[i] = strlen(all[i]);
    redisReply *reply = redisCommandArgv(r->context, argc + 3, all, sizes);
    if (reply && reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOSCRIPT", 8) == 0) {
        freeReplyObject(reply);
        all[0] = "EVAL";
        all[1] = script;
        sizes[0] = 4;
        sizes[1] = strlen(script);
        reply = redisCommandArgv(r->context, argc + 3, all, sizes);
    }
    return take_reply(sc, r, reply, out);
}

/* The script goes along with the calls, so that none of them meets a server that does not know it. */
static bool append_calls(struct scope *sc, struct redis *r, const char *script, int keys,
                         const struct redis_call *calls, size_t count)
{
    const char *load[] = {"SCRIPT", "LOAD", script};
    const char *sha1 = script_sha1(r, script), *key_count = arena_printf(&sc->arena, "%d", keys);
    if (redisAppendCommandArgv(r->context, array_len(load), load, NULL) != REDIS_OK)
        return false;
    for (size_t i = 0; i < count; i++) {
        const char **argv = arena_array(&sc->arena, (size_t)calls[i].argc + 3, sizeof *argv);
        argv[0] = sha1 ? "EVALSHA" : "EVAL";
        argv[1] = sha1 ? sha1 : script;
        argv[2] = key_count;
        memcpy(argv + 3, calls[i].argv, (size_t)calls[i].argc * sizeof *argv);
        if (redisAppendCommandArgv(r->context, calls[i].argc + 3, argv, NULL) != REDIS_OK)
            return false;
    }
    return true;
}

enum status redis_script_many(struct scope *sc, struct redis *r, const char *script, int keys,
                              const struct redis_call *calls, size_t count, enum status *out_each)
{
    for (size_t i = 0; i < count; i++)
        out_each[i] = STATUS_UNAVAILABLE;
    enum status s = connect_now(sc, r);
    if (s != STATUS_OK)
        return s;
    if (!append_calls(sc, r, script, keys, calls, count))
        return give_up(sc, r, r->context->errstr);
    for (size_t i = 0; i <= count; i++) {
        void *reply = NULL;
        if (!r->context) /* an answer before told that this is not the primary any more */
            return fail(sc, STATUS_UNAVAILABLE, "Redis: the connection was given up");
        if (redisGetReply(r->context, &reply) != REDIS_OK)
            return give_up(sc, r, r->context->errstr);
        struct scope own; /* one call's fault is not the others' */
        scope_init(&own, NULL);
        s = take_reply(&own, r, reply, NULL);
        if (i > 0)
            out_each[i - 1] = s;
        scope_done(&own);
    }
    return STATUS_OK;
}

static bool append_transaction(struct scope *sc, struct redis *r, const char *script, int keys,
                               const struct redis_call *call, const struct redis_call *command)
{
    const char *multi[] = {"MULTI"}, *exec[] = {"EXEC"}, *sha1 = script_sha1(r, script);
    const char **argv = arena_array(&sc->arena, (size_t)call->argc + 3, sizeof *argv);
    argv[0] = sha1 ? "EVALSHA" : "EVAL";
    argv[1] = sha1 ? sha1 : script;
    argv[2] = arena_printf(&sc->arena, "%d", keys);
    memcpy(argv + 3, call->argv, (size_t)call->argc * sizeof *argv);
    return redisAppendCommandArgv(r->context, 1, multi, NULL) == REDIS_OK &&
           redisAppendCommandArgv(r->context, call->argc + 3, argv, NULL) == REDIS_OK &&
           redisAppendCommandArgv(r->context, command->argc, command->argv, NULL) == REDIS_OK &&
           redisAppendCommandArgv(r->context, 1, exec, NULL) == REDIS_OK;
}

/* The first answer that is an error says why; all of them are read. */
static enum status take_transaction(struct scope *sc, struct redis *r, redisReply **out)
{
    enum status first = STATUS_OK;
    scoped(redisReply) *last = NULL;
    for (int i = 0; i < 4; i++) {
        void *reply = NULL;
        if (!r->context) /* an answer before told that this is not the primary any more */
            return fail(sc, STATUS_UNAVAILABLE, "Redis: the connection was given up");
        if (redisGetReply(r->context, &reply) != REDIS_OK)
            return give_up(sc, r, r->context->errstr);
        enum status s = take_reply(sc, r, reply, i == 3 ? &last : NULL);
        first = first == STATUS_OK ? s : first;
    }
    if (first != STATUS_OK)
        return first;
    if (last->type != REDIS_REPLY_ARRAY || last->elements != 2)
        return fail(sc, STATUS_INTERNAL, "Redis: an answer of another form");
    *out = last;
    last = NULL;
    return STATUS_OK;
}

enum status redis_script_and(struct scope *sc, struct redis *r, const char *script, int keys,
                             const struct redis_call *call, const struct redis_call *command, redisReply **out)
{
    enum status s = STATUS_OK;
    for (int tries = 0; tries < 2 && s == STATUS_OK; tries++) {
        scoped(redisReply) *both = NULL;
        s = connect_now(sc, r);
        if (s == STATUS_OK && !append_transaction(sc, r, script, keys, call, command))
            s = give_up(sc, r, r->context->errstr);
        if (s == STATUS_OK)
            s = take_transaction(sc, r, &both);
        if (s != STATUS_OK || !both)
            break;
        const redisReply *of_script = both->element[0];
        if (of_script->type == REDIS_REPLY_ERROR && strncmp(of_script->str, "NOSCRIPT", 8) == 0) {
            s = redis_run(sc, r, NULL, "SCRIPT LOAD %s", script);
            continue;
        }
        *out = both;
        both = NULL;
        return STATUS_OK;
    }
    return s != STATUS_OK ? s : fail(sc, STATUS_UNAVAILABLE, "Redis: it keeps no scripts");
}

int redis_fd(const struct redis *r)
{
    return r->context ? r->context->fd : -1;
}

bool redis_is_connected(const struct redis *r)
{
    return r->context != NULL;
}

int64_t redis_heard_ms(const struct redis *r)
{
    return r->heard_ms;
}

enum status redis_push(struct scope *sc, struct redis *r, const char *queue, const char *uuid)
{
    return redis_run(sc, r, NULL, "LPUSH %s %s", redis_key(sc, r, "queue:%s", queue), uuid);
}
