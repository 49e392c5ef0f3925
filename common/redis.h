/* Redis, blocking, with a deadline on everything; reconnects by itself with back-off and jitter. Not for two threads at
 * once. (The relay's subscriber uses hiredis' asynchronous side, in api/relay/subscriber.c.) */
#pragma once

#include "common/scope.h"

#include <hiredis/hiredis.h>
#include <string.h>

static inline void redis_reply_free(redisReply *r)
{
    freeReplyObject(r);
}
DEFINE_SCOPED(redisReply, redis_reply_free)

/* Of an answer to ROLE, which may be NULL. */
static inline bool redis_reply_is_primary(const redisReply *r)
{
    return r && r->type == REDIS_REPLY_ARRAY && r->elements > 0 && r->element[0]->type == REDIS_REPLY_STRING &&
           strcmp(r->element[0]->str, "master") == 0;
}

struct redis;
struct sentinels;

struct redis_options {
    const char *url;    /* redis://[user:password@]host[:port][/db], unix:///path, common/sentinel.h's; copied */
    int database;       /* SELECTed after connecting, whatever the URL says */
    const char *prefix; /* REDIS_PREFIX, may be "" */
    int timeout_ms;     /* for connecting and for each command; 0 = 1000 */
};

/* Percent-decoded, to be freed. */
char *redis_url_decoded(const char *s, size_t len);
struct redis *redis_new(const struct redis_options *options);
void redis_free(struct redis *r);
/* Where the URL points, for a client of another kind (the relay's subscriber). The strings live as long as `r`. */
struct redis_address {
    const char *host; /* or the path of a Unix socket */
    int port;
    bool is_unix;
    const char *user, *password;       /* NULL = none */
    const struct sentinels *sentinels; /* who knows host and port; NULL = they stand */
};
struct redis_address redis_address(const struct redis *r);
/* The options' prefix + name, in the scope's arena: every key and channel goes through this. */
const char *redis_key(struct scope *sc, const struct redis *r, const char *format, ...) printf_like(3, 4);

/* Runs one command (hiredis format, %s and %b). While a connection is in back-off it fails at once.
 * STATUS_UNAVAILABLE when Redis is away, loading, read-only, out of memory or too late (the connection is then closed,
 * so a late answer is never taken for another's); STATUS_INTERNAL for an error reply that is our mistake. Caller:
 * scoped(redisReply). */
enum status redis_run(struct scope *sc, struct redis *r, redisReply **out, const char *format, ...) must_check;
/* The same with arguments as an array. */
enum status redis_run_argv(struct scope *sc, struct redis *r, redisReply **out, int argc, const char **argv,
                           const size_t *lengths) must_check;
/* A blocking command: waits up to wait_ms (+ the options' time-out) for the answer. A nil answer is STATUS_OK with *out
 * nil. */
enum status redis_run_blocking(struct scope *sc, struct redis *r, int wait_ms, redisReply **out, const char *format,
                               ...) must_check;
/* For a loop that waits in poll() on redis_fd(): redis_send() sends a command (connecting first if needed) and returns
 * at once; redis_receive() takes the next answer, *out NULL when none has come yet, and never blocks. Its caller keeps
 * the deadline: redis_drop() closes a connection that stays silent, with the usual back-off. Not to be mixed with
 * redis_run() on one connection. */
enum status redis_send(struct scope *sc, struct redis *r, int argc, const char **argv) must_check;
enum status redis_receive(struct scope *sc, struct redis *r, redisReply **out) must_check;
void redis_drop(struct redis *r);
/* EVALSHA, with EVAL after NOSCRIPT. `script` must be constant text (its SHA-1 is remembered by address). */
enum status redis_script(struct scope *sc, struct redis *r, const char *script, int keys, int argc, const char **argv,
                         const size_t *lengths, redisReply **out) must_check;
/* Arguments of one call of a script: its keys first. */
struct redis_call {
    int argc;
    const char **argv;
};
/* Many calls of one script in one write. out_each[i] says how call i went. STATUS_UNAVAILABLE: the connection broke,
 * and nothing is known of those that say so. */
enum status redis_script_many(struct scope *sc, struct redis *r, const char *script, int keys,
                              const struct redis_call *calls, size_t count, enum status *out_each) must_check;
/* One call of a script and then one command (of lists that would be dear to carry through Lua), in one transaction and
 * one write. *out is the array of both answers; the script's may be an error, the command's too. */
enum status redis_script_and(struct scope *sc, struct redis *r, const char *script, int keys,
                             const struct redis_call *call, const struct redis_call *command,
                             redisReply **out) must_check;
/* The connection's descriptor for poll(), -1 when not connected. */
int redis_fd(const struct redis *r);
bool redis_is_connected(const struct redis *r);
/* clock_monotonic_ms() of the last answer of any kind; 0 = never. */
int64_t redis_heard_ms(const struct redis *r);

/* LPUSH queue:{name} uuid in the queue database. */
enum status redis_push(struct scope *sc, struct redis *r, const char *queue, const char *uuid) must_check;
