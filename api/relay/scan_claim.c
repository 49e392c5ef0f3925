#include "api/relay/scan_claim.h"

/* KEYS: the user's set. ARGV: scan id, connection, number, seconds, most. Answer: 0 = taken, 1 = the id is, 2 = too
 * many. There are never more members than may be, so looking at each is cheap. */
static const char take_script[] = "local now = tonumber(redis.call('TIME')[1])\n"
                                  "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)\n"
                                  "local own = ARGV[1] .. ' ' .. ARGV[2] .. ' '\n"
                                  "for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do\n"
                                  "  if string.sub(member, 1, #own) == own then redis.call('ZREM', KEYS[1], member)\n"
                                  "  elseif string.sub(member, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then return 1 end\n"
                                  "end\n"
                                  "if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 2 end\n"
                                  "redis.call('ZADD', KEYS[1], now + ARGV[4], own .. ARGV[3])\n"
                                  "redis.call('EXPIRE', KEYS[1], 2 * ARGV[4])\n"
                                  "return 0\n";

static const char renew_script[] = "local now = tonumber(redis.call('TIME')[1])\n"
                                   "redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])\n"
                                   "redis.call('EXPIRE', KEYS[1], 2 * ARGV[2])\n"
                                   "return 0\n";

static const char *key_of(struct scope *sc, struct redis *events, const struct scan_claim *c)
{
    return redis_key(sc, events, "scans:%lld", (long long)c->user_id);
}

static const char *member_of(struct scope *sc, const struct scan_claim *c)
{
    return arena_printf(&sc->arena, "%s %s %lld", c->scan_id, c->connection, (long long)c->number);
}

static const char *number(struct scope *sc, int64_t n)
{
    return arena_printf(&sc->arena, "%lld", (long long)n);
}

enum status scan_claim_take(struct scope *sc, struct redis *events, const struct scan_claim *c)
{
    const char *argv[] = {
        key_of(sc, events, c),    c->scan_id, c->connection, number(sc, c->number), number(sc, SCAN_CLAIM_SECONDS),
        number(sc, SCANS_OF_USER)};
    scoped(redisReply) *reply = NULL;
    enum status s = redis_script(sc, events, take_script, 1, (int)array_len(argv), argv, NULL, &reply);
    if (s != STATUS_OK)
        return s;
    if (reply->integer == 1)
        return fail(sc, STATUS_CONFLICT, "a scan with this id is running already: cancel it or use another id");
    if (reply->integer == 2)
        return fail(sc, STATUS_RATE_LIMITED, "you have %d scans running: wait until one ends", SCANS_OF_USER);
    return STATUS_OK;
}

enum status scan_claim_renew(struct scope *sc, struct redis *events, const struct scan_claim *c)
{
    const char *argv[] = {key_of(sc, events, c), member_of(sc, c), number(sc, SCAN_CLAIM_SECONDS)};
    return redis_script(sc, events, renew_script, 1, (int)array_len(argv), argv, NULL, NULL);
}

enum status scan_claim_leave(struct scope *sc, struct redis *events, const struct scan_claim *c)
{
    return redis_run(sc, events, NULL, "ZREM %s %s", key_of(sc, events, c), member_of(sc, c));
}
