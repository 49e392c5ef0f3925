#include "api/relay/registry.h"

#include <stdio.h>
#include <string.h>

/* KEYS: connections, then of each member the user's set and the operation's (connections again = none). ARGV: seconds
 * it counts, most of a user, most of an operation, how an instance's channel begins, what it is asked, then the
 * members. Answers: 0 = entered, 1 = the user has too many, 2 = the operation has. Redis' clock decides for all
 * instances. */
static const char enter_script[] =
    "local now, answers = tonumber(redis.call('TIME')[1]), {}\n"
    "local function live(key)\n"
    "  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)\n"
    "  return redis.call('ZCARD', key)\n"
    "end\n"
    "local function ask(user_key)\n"
    "  local asked = {}\n"
    "  for _, member in ipairs(redis.call('ZRANGE', user_key, 0, 99)) do\n"
    "    local instance, user = string.match(member, '^([^:]+):%d+:(%d+)')\n"
    "    if instance and not asked[instance] then\n"
    "      asked[instance] = true\n"
    "      redis.call('PUBLISH', ARGV[4] .. instance, ARGV[5] .. user)\n"
    "    end\n"
    "  end\n"
    "end\n"
    "live(KEYS[1])\n"
    "for i = 1, (#KEYS - 1) / 2 do\n"
    "  local user, operation, member = KEYS[2 * i], KEYS[2 * i + 1], ARGV[5 + i]\n"
    "  local answer = 0\n"
    "  if not redis.call('ZSCORE', user, member) then\n"
    "    if live(user) >= tonumber(ARGV[2]) then answer = 1\n"
    "    elseif operation ~= KEYS[1] and live(operation) >= tonumber(ARGV[3]) then answer = 2 end\n"
    "  end\n"
    "  if answer == 1 then ask(user) end\n"
    "  for _, key in ipairs(answer == 0 and {KEYS[1], user, operation} or {}) do\n"
    "    redis.call('ZADD', key, now + ARGV[1], member)\n"
    "    redis.call('EXPIRE', key, 2 * ARGV[1])\n"
    "  end\n"
    "  answers[i] = answer\n"
    "end\n"
    "return answers\n";

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

void registry_name(struct registration *r, const char *instance_id, int64_t number, int64_t now_ms)
{
    snprintf(r->member, sizeof r->member, "%s:%lld:%lld:%lld", instance_id, (long long)number, (long long)r->user_id,
             (long long)(now_ms / 1000));
}

enum status registry_enter(struct scope *sc, struct redis *events, const struct registration *const *list, int count,
                           int64_t max_per_user, int64_t max_per_operation, enum registry_answer *out)
{
    const char **argv = arena_array(&sc->arena, 3 * (size_t)count + 6, sizeof(const char *));
    int keys = 0;
    argv[keys++] = redis_key(sc, events, "websocket:connections");
    for (int i = 0; i < count; i++) {
        argv[keys++] = user_key(sc, events, list[i]);
        argv[keys++] = list[i]->operation_id[0] ? operation_key(sc, events, list[i]) : argv[0];
    }
    int argc = keys;
    argv[argc++] = arena_printf(&sc->arena, "%d", REGISTRY_LIFE_SECONDS);
    argv[argc++] = arena_printf(&sc->arena, "%lld", (long long)max_per_user);
    argv[argc++] = arena_printf(&sc->arena, "%lld", (long long)max_per_operation);
    argv[argc++] = redis_key(sc, events, REGISTRY_INSTANCE_CHANNEL, "");
    argv[argc++] = REGISTRY_ASK;
    for (int i = 0; i < count; i++)
        argv[argc++] = list[i]->member;
    scoped(redisReply) *reply = NULL;
    enum status s = redis_script(sc, events, enter_script, keys, argc, argv, NULL, &reply);
    if (s != STATUS_OK)
        return s;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != (size_t)count)
        return fail(sc, STATUS_INTERNAL, "Redis: an answer of another form");
    for (int i = 0; i < count; i++)
        out[i] = (enum registry_answer)reply->element[i]->integer;
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

/* KEYS: the operation's set. ARGV: how many. Answer: how many there are, then some of them. */
static const char watchers_script[] =
    "local now = tonumber(redis.call('TIME')[1])\n"
    "return {redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf'),\n"
    "  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, ARGV[1])}\n";

static void count_watcher(const char *member, struct watcher *out, int *count)
{
    long long user_id, since;
    if (sscanf(member, "%*36[0-9a-f-]:%*20[0-9]:%20lld:%20lld", &user_id, &since) != 2)
        return;
    int i = 0;
    while (i < *count && out[i].user_id != user_id)
        i++;
    if (i == *count)
        out[(*count)++] = (struct watcher){.user_id = user_id, .since = since};
    out[i].connections++;
    if (since < out[i].since)
        out[i].since = since;
}

static int compare_watchers(const void *left, const void *right)
{
    const struct watcher *a = left, *b = right;
    if (a->since != b->since)
        return a->since < b->since ? -1 : 1;
    return a->user_id < b->user_id ? -1 : a->user_id > b->user_id;
}

enum status registry_watchers(struct scope *sc, struct redis *events, const char *operation_id, int most,
                              struct watcher *out, int *out_count, int64_t *out_total)
{
    struct registration of = {0};
    snprintf(of.operation_id, sizeof of.operation_id, "%s", operation_id);
    const char *argv[] = {operation_key(sc, events, &of), arena_printf(&sc->arena, "%d", most)};
    scoped(redisReply) *reply = NULL;
    enum status s = redis_script(sc, events, watchers_script, 1, array_len(argv), argv, NULL, &reply);
    if (s != STATUS_OK)
        return s;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[1]->type != REDIS_REPLY_ARRAY)
        return fail(sc, STATUS_INTERNAL, "Redis: an answer of another form");
    *out_count = 0;
    *out_total = reply->element[0]->integer;
    for (size_t i = 0; i < reply->element[1]->elements && i < (size_t)most; i++)
        count_watcher(reply->element[1]->element[i]->str, out, out_count);
    qsort(out, (size_t)*out_count, sizeof *out, compare_watchers);
    return STATUS_OK;
}
