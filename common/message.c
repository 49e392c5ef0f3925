#include "common/message.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/password.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define KEPT_EVENTS_OPERATION "1000"
#define KEPT_EVENTS_USER "10000"
enum { EPOCH_BYTES = 8, SCRIPT_KEYS = 5 };

/* Runs as one step inside Redis, so that both streams and the channels never disagree. Everything is read before the
 * first write: a script that is refused for want of memory has changed nothing.
 *
 * KEYS: operation's stream, its meta, user's stream, epoch, the server that it is bound to.
 * ARGV: attempt, is_last (0 or 1: whether the last event closes the stream), an epoch in case there is none, kept
 * events of the operation and of the user, seconds they are kept, number of channels, the channels, then the events
 * without their ids. Answer: the last event's id, or nil when they were refused.
 *
 * A last event is refused by a closed stream only. It tells of a row that is final; after a power cut of PostgreSQL
 * that row may say an older attempt than the stream (claims commit asynchronously), and nobody would close it then.
 * (Model: publish.)
 *
 * An id must exceed the last one of each stream, even if the clock went back; both streams always keep their newest
 * entry, so that tells. */
static const char publish_script[] = MESSAGE_EPOCH_LUA
    "local attempt = tonumber(ARGV[1])\n"
    "local meta = redis.call('HMGET', KEYS[2], 'attempt', 'closed')\n"
    "if meta[2] or (attempt < tonumber(meta[1] or '-1') and ARGV[2] ~= '1') then return false end\n"
    "local now = redis.call('TIME')\n"
    "local ms, seq = now[1] * 1000 + math.floor(now[2] / 1000), 0\n"
    "for _, key in ipairs({KEYS[1], KEYS[3]}) do\n"
    "  local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]\n"
    "  if newest then\n"
    "    local dash = string.find(newest[1], '-', 1, true)\n"
    "    local last_ms, last_seq = tonumber(string.sub(newest[1], 1, dash - 1)), tonumber(string.sub(newest[1], dash + "
    "1))\n"
    "    if last_ms > ms or (last_ms == ms and last_seq >= seq) then ms, seq = last_ms, last_seq + 1 end\n"
    "  end\n"
    "end\n"
    "local epoch, server, is_known = current_epoch(KEYS[4], KEYS[5])\n"
    "epoch = epoch or ARGV[3]\n"
    "if not is_known then redis.call('MSET', KEYS[4], epoch, KEYS[5], server) end\n"
    "local channels, id = tonumber(ARGV[7]), nil\n"
    "for e = 8 + channels, #ARGV do\n"
    "  local entry = string.format('%.0f-%.0f', ms, seq)\n"
    "  id = epoch .. '-' .. entry\n"
    "  local message = '{\"id\":\"' .. id .. '\",' .. string.sub(ARGV[e], 2)\n"
    "  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], entry, 'message', message)\n"
    "  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], entry, 'message', message)\n"
    "  for i = 8, 7 + channels do redis.call('PUBLISH', ARGV[i], message) end\n"
    "  seq = seq + 1\n"
    "end\n"
    "if ARGV[2] == '1' then redis.call('HSET', KEYS[2], 'attempt', attempt, 'closed', 1)\n"
    "else redis.call('HSET', KEYS[2], 'attempt', attempt) end\n"
    "for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[6]) end\n"
    "return id\n";

static const char *or_null(const char *s)
{
    return s && *s ? s : NULL;
}

/* What stands between the braces of a JSON object. */
static void put_members(struct text *out, const char *object)
{
    static const char blanks[] = " \t\r\n";
    const char *first = object ? object + strspn(object, blanks) : "";
    size_t len = strlen(first);
    while (len && strchr(blanks, first[len - 1]))
        len--;
    if (len < 2 || *first != '{' || first[len - 1] != '}')
        return;
    size_t skipped = 1 + strspn(first + 1, blanks);
    if (skipped + 1 >= len)
        return;
    text_putc(out, ',');
    text_append(out, first + skipped, len - skipped - 1);
}

void message_write(struct text *out, const struct event *e, const char *timestamp)
{
    json_open(out, NULL, '{');
    json_text(out, "timestamp", timestamp);
    json_text(out, "type", e->type);
    json_text(out, "operation_id", e->operation_id);
    json_text(out, "collection_id", or_null(e->collection_id));
    json_text(out, "status", e->status);
    json_real(out, "progress", e->progress < 0 ? NAN : e->progress);
    json_open(out, "data", '{');
    json_text(out, "operation_id", e->operation_id);
    json_text(out, "collection_id", or_null(e->collection_id));
    put_members(out, e->data_json);
    json_close(out, '}');
    json_close(out, '}');
}

/* The script's call for `count` events of one operation. */
static struct redis_call call_of(struct scope *sc, struct redis *r, const struct event *events, size_t count)
{
    const struct event *first = &events[0], *last = &events[count - 1];
    const char *collection = or_null(first->collection_id);
    long long user = (long long)first->user_id;
    const char **argv = arena_array(&sc->arena, 15 + count, sizeof *argv);
    int n = 0;
    argv[n++] = redis_key(sc, r, MESSAGE_STREAM, first->operation_id);
    argv[n++] = redis_key(sc, r, MESSAGE_STREAM_META, first->operation_id);
    argv[n++] = redis_key(sc, r, MESSAGE_USER_STREAM, user);
    argv[n++] = redis_key(sc, r, MESSAGE_EPOCH);
    argv[n++] = redis_key(sc, r, MESSAGE_EPOCH_SERVER);
    argv[n++] = arena_printf(&sc->arena, "%d", last->attempt);
    argv[n++] = last->is_last ? "1" : "0";
    argv[n++] = random_hex(sc, EPOCH_BYTES);
    argv[n++] = KEPT_EVENTS_OPERATION;
    argv[n++] = KEPT_EVENTS_USER;
    argv[n++] = MESSAGE_KEPT_SECONDS;
    argv[n++] = collection ? "3" : "2";
    argv[n++] = redis_key(sc, r, MESSAGE_CHANNEL_OPERATION, first->operation_id);
    argv[n++] = redis_key(sc, r, MESSAGE_CHANNEL_USER, user);
    if (collection)
        argv[n++] = redis_key(sc, r, MESSAGE_CHANNEL_COLLECTION, collection);
    for (size_t i = 0; i < count; i++) {
        char now[28];
        clock_iso(now);
        scoped_text json = {0};
        message_write(&json, &events[i], events[i].timestamp ? events[i].timestamp : now);
        argv[n++] = arena_strdup(&sc->arena, json.data);
    }
    return (struct redis_call){n, argv};
}

enum status message_publish(struct scope *sc, struct redis *r, const struct event *e, const char **out_id)
{
    const struct redis_call call = call_of(sc, r, e, 1);
    scoped(redisReply) *reply = NULL;
    enum status s = redis_script(sc, r, publish_script, SCRIPT_KEYS, call.argc, call.argv, NULL, &reply);
    if (s == STATUS_OK && out_id)
        *out_id = reply->type == REDIS_REPLY_STRING ? arena_strndup(&sc->arena, reply->str, reply->len) : NULL;
    return s;
}

enum status message_publish_many(struct scope *sc, struct redis *r, const struct event *events, size_t count,
                                 enum status *out_each)
{
    struct redis_call *calls = arena_array(&sc->arena, count + 1, sizeof *calls);
    enum status *each = arena_array(&sc->arena, count + 1, sizeof *each);
    size_t *call_of_event = arena_array(&sc->arena, count + 1, sizeof *call_of_event), n = 0;
    for (size_t i = 0, k; i < count; i += k) {
        for (k = 1; i + k < count && strcmp(events[i + k].operation_id, events[i].operation_id) == 0; k++)
            ;
        calls[n] = call_of(sc, r, events + i, k);
        for (size_t e = 0; e < k; e++)
            call_of_event[i + e] = n;
        n++;
    }
    enum status s = count ? redis_script_many(sc, r, publish_script, SCRIPT_KEYS, calls, n, each) : STATUS_OK;
    for (size_t i = 0; i < count; i++)
        out_each[i] = each[call_of_event[i]];
    return s;
}

enum status message_control(struct scope *sc, struct redis *r, const char *worker_id, const char *action,
                            const char *operation_id)
{
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "action", action);
    json_text(&json, "operation_id", operation_id);
    json_close(&json, '}');
    const char *channel = or_null(worker_id) ? redis_key(sc, r, MESSAGE_CONTROL_WORKER, worker_id)
                                             : redis_key(sc, r, MESSAGE_CONTROL);
    return redis_run(sc, r, NULL, "PUBLISH %s %s", channel, json.data);
}

/* A number in the form that Redis prints: digits alone. */
static bool parse_number(const char *s, size_t len, uint64_t *out)
{
    if (len == 0 || len > 20 || strspn(s, "0123456789") < len)
        return false;
    errno = 0;
    *out = strtoull(s, NULL, 10);
    return errno == 0;
}

enum status event_id_parse(const char *text, struct event_id *out)
{
    if (strcmp(text, "0") == 0) {
        *out = (struct event_id){.epoch = ""};
        return STATUS_OK;
    }
    struct event_id id = {.epoch = ""};
    size_t epoch_len = strspn(text, "0123456789abcdef");
    if (epoch_len == 0 || epoch_len >= sizeof id.epoch || text[epoch_len] != '-')
        return STATUS_INVALID;
    const char *ms = text + epoch_len + 1;
    const char *dash = strchr(ms, '-');
    if (!dash || !parse_number(ms, (size_t)(dash - ms), &id.ms) || !parse_number(dash + 1, strlen(dash + 1), &id.seq))
        return STATUS_INVALID;
    if (id.ms == UINT64_MAX && id.seq == UINT64_MAX)
        return STATUS_INVALID; /* nothing could follow it, and Redis takes it for no place to begin */
    memcpy(id.epoch, text, epoch_len);
    *out = id;
    return STATUS_OK;
}

int event_id_compare(const struct event_id *a, const struct event_id *b)
{
    if (a->ms != b->ms)
        return a->ms < b->ms ? -1 : 1;
    return a->seq == b->seq ? 0 : a->seq < b->seq ? -1 : 1;
}

bool uuid_is_valid(const char *s)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    for (int i = 0; i < 36; i++) {
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (!s[i] || (is_dash ? s[i] != '-' : !strchr(hex, s[i])))
            return false;
    }
    return s[36] == '\0';
}

void uuid_make(char out[37])
{
    unsigned char b[16];
    while (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        ; /* interrupted */
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    char *p = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += snprintf(p, 3, "%02x", b[i]);
    }
}
