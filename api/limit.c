#include "api/limit.h"

#include "api/rate.h"
#include "common/clock.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { SLOTS = 4096, GIVE_BACK_FROM_MS = 60000 };

/* Ten wrong passwords at once, then one in half a minute; an address, behind which there may be many people, five times
 * as much. */
static const struct limit_rate rate_of_account = {.burst = 10, .interval_ms = 30000};
static const struct limit_rate rate_of_address = {.burst = 50, .interval_ms = 6000};

/* Tries at guessing, kept while Redis is away. Two callers that fall into one slot share it: slower, never faster. */
struct limiter {
    pthread_mutex_t lock;
    int64_t tat_ms[SLOTS];
};

struct limiter *limiter_new(void)
{
    struct limiter *l = must_calloc(1, sizeof *l);
    pthread_mutex_init(&l->lock, NULL);
    return l;
}

void limiter_free(struct limiter *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static int64_t unit_ms(const char *unit)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"second", 1000}, {"minute", 60000}, {"hour", 3600000}, {"day", 86400000}};
    for (size_t i = 0; i < array_len(units); i++) {
        if (strcmp(units[i].name, unit) == 0)
            return units[i].ms;
    }
    char *end;
    long long seconds = isdigit((unsigned char)*unit) ? strtoll(unit, &end, 10) : 0;
    return seconds > 0 && seconds <= 86400 && strcmp(end, "s") == 0 ? seconds * 1000 : 0;
}

enum status limit_parse(const char *text, struct limit_rate *out)
{
    char *end;
    long n = isdigit((unsigned char)*text) ? strtol(text, &end, 10) : 0;
    int64_t period = n > 0 && n <= 1000000 && *end == '/' ? unit_ms(end + 1) : 0;
    if (!period)
        return STATUS_INVALID;
    *out = (struct limit_rate){.burst = (int)n, .interval_ms = period / n > 0 ? period / n : 1};
    return STATUS_OK;
}

int64_t limit_step(const struct limit_rate *rate, int64_t now_ms, int64_t *tat_ms)
{
    return rate_step(&(struct rate){.burst = rate->burst, .interval = rate->interval_ms}, now_ms, tat_ms);
}

/* The same step in Redis, by its clock. KEYS[1]; ARGV: burst, interval in ms. Returns {wait, tat - now}. */
static const char step_script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local burst, interval = tonumber(ARGV[1]), tonumber(ARGV[2])\n"
    "local tat = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0') or 0)\n"
    "tat = math.min(tat, now + burst * interval)\n" /* if the clock went back, or the key holds nonsense */
    "local wait = tat - (burst - 1) * interval - now\n"
    "if wait > 0 then return {wait, tat - now} end\n"
    "tat = tat + interval\n"
    "redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', string.format('%.0f', math.max(tat - now, 1)))\n"
    "return {0, tat - now}\n";

struct outcome {
    int64_t wait_ms;  /* 0 = allowed */
    int64_t ahead_ms; /* how far the stored time lies in the future */
};

static enum status step_in_redis(struct request *r, const struct limit_rate *rate, const char *key, struct outcome *out)
{
    const char *argv[] = {key, arena_printf(&r->sc->arena, "%d", rate->burst),
                          arena_printf(&r->sc->arena, "%lld", (long long)rate->interval_ms)};
    scoped(redisReply) *reply = NULL;
    if (!r->events)
        return STATUS_UNAVAILABLE;
    enum status s = redis_script(r->sc, r->events, step_script, 1, (int)array_len(argv), argv, NULL, &reply);
    if (s != STATUS_OK) {
        log_debug("limit_unavailable", log_text("problem", r->sc->problem_text));
        scope_forgive(r->sc); /* known: the caller decides what it means */
        return s;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
        return STATUS_INTERNAL;
    *out = (struct outcome){reply->element[0]->integer, reply->element[1]->integer};
    return STATUS_OK;
}

/* FNV-1a. */
static size_t slot_of(const char *key)
{
    uint64_t h = 14695981039346656037u;
    for (; *key; key++)
        h = (h ^ (unsigned char)*key) * 1099511628211u;
    return h % SLOTS;
}

static void step_here(struct limiter *l, const struct limit_rate *rate, const char *key, struct outcome *out)
{
    int64_t now = clock_monotonic_ms();
    pthread_mutex_lock(&l->lock);
    int64_t *tat = &l->tat_ms[slot_of(key)];
    out->wait_ms = limit_step(rate, now, tat);
    out->ahead_ms = *tat - now;
    pthread_mutex_unlock(&l->lock);
}

enum status limit_refuse(struct request *r, const char *limit, int64_t most, int64_t retry_seconds)
{
    int64_t reset_at = clock_wall_ms() / 1000 + retry_seconds;
    const char *after = arena_printf(&r->sc->arena, "%lld", (long long)retry_seconds);
    struct text *t = reply_json(r, 429);
    json_open(t, NULL, '{');
    json_text(t, "detail", "Rate limit exceeded");
    json_text(t, "error", "rate_limit_exceeded");
    json_int(t, "retry_after", retry_seconds);
    json_text(t, "limit", limit);
    json_text(t, "reference", arena_printf(&r->sc->arena, "ERR-%s", r->sc->trace_id));
    json_close(t, '}');
    reply_header(r, "Retry-After", after);
    reply_header(r, "X-RateLimit-Limit", arena_printf(&r->sc->arena, "%lld", (long long)most));
    reply_header(r, "X-RateLimit-Remaining", "0");
    reply_header(r, "X-RateLimit-Reset", arena_printf(&r->sc->arena, "%lld", (long long)reset_at));
    return fail(r->sc, STATUS_RATE_LIMITED, "Rate limit exceeded");
}

static enum status refuse(struct request *r, const struct limit_rate *rate, const char *limit, const struct outcome *o)
{
    return limit_refuse(r, limit, rate->burst, (o->wait_ms + 999) / 1000);
}

static void tell_remaining(struct request *r, const struct limit_rate *rate, const struct outcome *o)
{
    int64_t reset_at = (clock_wall_ms() + o->ahead_ms + 999) / 1000;
    int64_t used = (o->ahead_ms + rate->interval_ms - 1) / rate->interval_ms;
    int64_t remaining = used < rate->burst ? rate->burst - used : 0;
    reply_header(r, "X-RateLimit-Limit", arena_printf(&r->sc->arena, "%d", rate->burst));
    reply_header(r, "X-RateLimit-Remaining", arena_printf(&r->sc->arena, "%lld", (long long)remaining));
    reply_header(r, "X-RateLimit-Reset", arena_printf(&r->sc->arena, "%lld", (long long)reset_at));
}

/* Whoever has one IPv6 address has the 2^64 beside it. */
static const char *network_of(struct request *r)
{
    struct in6_addr address;
    char out[INET6_ADDRSTRLEN] = "";
    if (inet_pton(AF_INET6, r->client_address, &address) != 1)
        return r->client_address;
    memset(&address.s6_addr[8], 0, 8);
    return inet_ntop(AF_INET6, &address, out, sizeof out) ? arena_strdup(&r->sc->arena, out) : r->client_address;
}

enum status limit_check(struct request *r)
{
    struct limit_rate rate;
    struct outcome o = {0};
    bool is_on = strcasecmp(r->api->settings->rate_limits, "off") != 0;
    if (!is_on || !*r->route->limit)
        return STATUS_OK;
    if (limit_parse(r->route->limit, &rate) != STATUS_OK)
        return fail(r->sc, STATUS_INTERNAL, "routes.def: `%s` is no limit", r->route->limit);
    const char *who = r->user.id ? arena_printf(&r->sc->arena, "u%lld", (long long)r->user.id) : network_of(r);
    const char *key = r->events ? redis_key(r->sc, r->events, "limit:%s:%s:%s", r->route->method, r->route->path, who)
                                : "";
    if (step_in_redis(r, &rate, key, &o) != STATUS_OK)
        return STATUS_OK; /* better served than refused while Redis is away */
    if (o.wait_ms > 0)
        return refuse(r, &rate, r->route->limit, &o);
    tell_remaining(r, &rate, &o);
    r->limit_key = key;
    return STATUS_OK;
}

/* KEYS[1]; ARGV: interval in ms. */
static const char give_back_script[] =
    "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECRBY', KEYS[1], ARGV[1]) end\n"
    "return 1\n";

void limit_give_back(struct request *r)
{
    struct limit_rate rate;
    scoped(redisReply) *reply = NULL;
    if (!r->limit_key || !r->user.id || limit_parse(r->route->limit, &rate) != STATUS_OK ||
        rate.interval_ms <= GIVE_BACK_FROM_MS)
        return;
    const char *argv[] = {r->limit_key, arena_printf(&r->sc->arena, "%lld", (long long)rate.interval_ms)};
    struct scope own; /* what goes wrong here is nobody's problem */
    scope_init(&own, r->sc->trace_id);
    own.deadline_ms = r->sc->deadline_ms;
    if (redis_script(&own, r->events, give_back_script, 1, (int)array_len(argv), argv, NULL, &reply) != STATUS_OK)
        log_debug("limit_unavailable", log_text("problem", own.problem_text));
    scope_done(&own);
}

/* Names are the same account however they are written. */
static const char *guess_key(struct request *r, const char *kind, const char *who)
{
    char *lower = arena_strdup(&r->sc->arena, who);
    for (char *p = lower; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return r->events ? redis_key(r->sc, r->events, "guess:%s:%s", kind, lower)
                     : arena_printf(&r->sc->arena, "guess:%s:%s", kind, lower);
}

static enum status guess_step(struct request *r, const struct limit_rate *rate, const char *key, const char *limit)
{
    struct outcome o = {0};
    if (step_in_redis(r, rate, key, &o) != STATUS_OK)
        step_here(r->api->limiter, rate, key, &o);
    return o.wait_ms > 0 ? refuse(r, rate, limit, &o) : STATUS_OK;
}

enum status limit_guess(struct request *r, const char *account)
{
    enum status s = guess_step(r, &rate_of_address, guess_key(r, "address", network_of(r)), "10/minute");
    return s == STATUS_OK ? guess_step(r, &rate_of_account, guess_key(r, "account", account), "2/minute") : s;
}

/* KEYS: account, address; ARGV: the address' interval. */
static const char forget_script[] =
    "redis.call('DEL', KEYS[1])\n"
    "if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('DECRBY', KEYS[2], ARGV[1]) end\n"
    "return 1\n";

static void forget_here(struct limiter *l, const char *account, const char *address)
{
    pthread_mutex_lock(&l->lock);
    l->tat_ms[slot_of(account)] -= rate_of_account.interval_ms; /* not more: the slot may be another account's, too */
    l->tat_ms[slot_of(address)] -= rate_of_address.interval_ms;
    pthread_mutex_unlock(&l->lock);
}

void limit_guess_forget(struct request *r, const char *account)
{
    const char *argv[] = {guess_key(r, "account", account), guess_key(r, "address", network_of(r)),
                          arena_printf(&r->sc->arena, "%lld", (long long)rate_of_address.interval_ms)};
    scoped(redisReply) *reply = NULL;
    forget_here(r->api->limiter, argv[0], argv[1]);
    if (r->events &&
        redis_script(r->sc, r->events, forget_script, 2, (int)array_len(argv), argv, NULL, &reply) != STATUS_OK)
        scope_forgive(r->sc);
}
