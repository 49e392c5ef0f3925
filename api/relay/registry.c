#include "api/relay/registry.h"

#include <string.h>

/* KEYS: connections, the user's, [the operation's]. ARGV: member, seconds it counts, most of the user, most of the
 * operation. Answer: 0 = entered, 1 = the user has too many, 2 = the operation has. Redis' clock decides for all
 * instances. */
static const char enter_script[] =
    "local now = tonumber(redis.call('TIME')[1])\n"
    "for i = 1, #KEYS do redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now) end\n"
    "for i = 2, #KEYS do\n"
    "  local known = redis.call('ZSCORE', KEYS[i], ARGV[1])\n"
    "  if not known and redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[i + 1]) then return i - 1 end\n"
    "end\n"
    "for i = 1, #KEYS do\n"
    "  redis.call('ZADD', KEYS[i], now + ARGV[2], ARGV[1])\n"
    "  redis.call('EXPIRE', KEYS[i], 2 * ARGV[2])\n"
    "end\n"
    "return 0\n";

/* KEYS as above. ARGV: member. */
static const char leave_script[] = "for i = 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end\n"
                                   "return 0\n";

/* KEYS: connections, then one for each pair of member and set. ARGV: seconds, then the members of KEYS[2] and on. */
static const char renew_script[] = "local now = tonumber(redis.call('TIME')[1])\n"
                                   "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)\n"
                                   "for i = 2, #KEYS do\n"
                                   "  redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])\n"
                                   "  redis.call('ZADD', KEYS[i], now + ARGV[1], ARGV[i])\n"
                                   "  redis.call('EXPIRE', KEYS[i], 2 * ARGV[1])\n"
                                   "end\n"
                                   "redis.call('EXPIRE', KEYS[1], 2 * ARGV[1])\n"
                                   "return 0\n";

static const char *user_key(struct scope *sc, struct redis *events, const struct registration *r)
{
    return redis_key(sc, events, "websocket:connections:user:%lld", (long long)r->user_id);
}

static const char *operation_key(struct scope *sc, struct redis *events, const struct registration *r)
{
    return redis_key(sc, events, "websocket:connections:operation:%s", r->operation_id);
}

/* Writes the keys of one registration; returns how many. */
static int put_keys(struct scope *sc, struct redis *events, const struct registration *r, const char **out)
{
    out[0] = redis_key(sc, events, "websocket:connections");
    out[1] = user_key(sc, events, r);
    if (!r->operation_id[0])
        return 2;
    out[2] = operation_key(sc, events, r);
    return 3;
}

enum status registry_enter(struct scope *sc, struct redis *events, const struct registration *r, int64_t max_per_user,
                           int64_t max_per_operation)
{
    const char *argv[7];
    int keys = put_keys(sc, events, r, argv), argc = keys;
    argv[argc++] = r->member;
    argv[argc++] = arena_printf(&sc->arena, "%d", REGISTRY_LIFE_SECONDS);
    argv[argc++] = arena_printf(&sc->arena, "%lld", (long long)max_per_user);
    argv[argc++] = arena_printf(&sc->arena, "%lld", (long long)max_per_operation);
    scoped(redisReply) *reply = NULL;
    enum status s = redis_script(sc, events, enter_script, keys, argc, argv, NULL, &reply);
    if (s != STATUS_OK)
        return s;
    if (reply->integer == 1)
        return fail(sc, STATUS_RATE_LIMITED, "too many connections of this user");
    if (reply->integer == 2)
        return fail(sc, STATUS_RATE_LIMITED, "too many connections to this operation");
    return STATUS_OK;
}

enum status registry_leave(struct scope *sc, struct redis *events, const struct registration *r)
{
    const char *argv[4];
    int keys = put_keys(sc, events, r, argv);
    argv[keys] = r->member;
    return redis_script(sc, events, leave_script, keys, keys + 1, argv, NULL, NULL);
}

enum status registry_renew(struct scope *sc, struct redis *events, const struct registration *list, int count)
{
    size_t most = 2 * (size_t)count + 2;
    const char **keys = arena_array(&sc->arena, 2 * most, sizeof(const char *));
    const char **members = arena_array(&sc->arena, most, sizeof(const char *));
    int key_count = 0, member_count = 0;
    keys[key_count++] = redis_key(sc, events, "websocket:connections");
    members[member_count++] = arena_printf(&sc->arena, "%d", REGISTRY_LIFE_SECONDS);
    for (int i = 0; i < count; i++) {
        keys[key_count++] = user_key(sc, events, &list[i]);
        members[member_count++] = list[i].member;
        if (!list[i].operation_id[0])
            continue;
        keys[key_count++] = operation_key(sc, events, &list[i]);
        members[member_count++] = list[i].member;
    }
    memcpy(keys + key_count, members, (size_t)member_count * sizeof(const char *));
    return redis_script(sc, events, renew_script, key_count, key_count + member_count, keys, NULL, NULL);
}
