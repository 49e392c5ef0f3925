#include "api/relay/history.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* KEYS: stream, epoch, the server that it is bound to. ARGV: where to begin (exclusive). Answer: epoch, whether the
 * stream exists, its first and last id, whether entries were trimmed, whether it holds the entry where to begin. The
 * entries themselves follow by XRANGE in the same transaction: through Lua they cost Redis several times as much. */
static const char head_script[] = MESSAGE_EPOCH_LUA
    "local epoch = current_epoch(KEYS[2], KEYS[3]) or ''\n"
    "if redis.call('EXISTS', KEYS[1]) == 0 then return {epoch, 0, '', '', 0, 0} end\n"
    "local length, added, last = 0, -1, ''\n"
    "local info = redis.call('XINFO', 'STREAM', KEYS[1])\n"
    "for i = 1, #info, 2 do\n"
    "  if info[i] == 'length' then length = info[i + 1] end\n"
    "  if info[i] == 'entries-added' then added = info[i + 1] end\n"
    "  if info[i] == 'last-generated-id' then last = info[i + 1] end\n"
    "end\n"
    "local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]\n"
    "local trimmed = (added > length or (added < 0 and length >= 1000)) and 1 or 0\n"
    "local has = #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])\n"
    "return {epoch, 1, first and first[1] or '', last, trimmed, has}\n";

static bool parse_stream_id(const char *text, struct event_id *out)
{
    char *dash = NULL, *end = NULL;
    if (!text || !isdigit((unsigned char)*text))
        return false;
    uint64_t ms = strtoull(text, &dash, 10);
    if (*dash != '-' || !isdigit((unsigned char)dash[1]))
        return false;
    out->ms = ms;
    out->seq = strtoull(dash + 1, &end, 10);
    return *end == '\0';
}

static bool is_head(const redisReply *head)
{
    return head->type == REDIS_REPLY_ARRAY && head->elements == 6;
}

static struct redis_call head_call(struct scope *sc, struct redis *events, const char *stream,
                                   const struct event_id *after)
{
    const char **argv = arena_array(&sc->arena, 4, sizeof *argv);
    argv[0] = stream;
    argv[1] = redis_key(sc, events, MESSAGE_EPOCH);
    argv[2] = redis_key(sc, events, MESSAGE_EPOCH_SERVER);
    argv[3] = arena_printf(&sc->arena, "%llu-%llu", (unsigned long long)after->ms, (unsigned long long)after->seq);
    return (struct redis_call){4, argv};
}

/* *out: the head's answer and the page's entries. */
static enum status ask(struct scope *sc, struct redis *events, const char *stream, const struct event_id *after,
                       redisReply **out)
{
    const struct redis_call head = head_call(sc, events, stream, after);
    const char *range[] = {"XRANGE", stream,  arena_printf(&sc->arena, "(%s", head.argv[3]),
                           "+",      "COUNT", arena_printf(&sc->arena, "%d", HISTORY_PAGE_EVENTS)};
    scoped(redisReply) *both = NULL;
    enum status s = redis_script_and(sc, events, head_script, 3, &head,
                                     &(struct redis_call){(int)array_len(range), range}, &both);
    if (s != STATUS_OK)
        return s;
    if (!is_head(both->element[0]) || both->element[1]->type != REDIS_REPLY_ARRAY)
        return fail(sc, STATUS_INTERNAL, "Redis: an answer of another form");
    *out = both;
    both = NULL;
    return STATUS_OK;
}

static void take_entries(struct history_page *page, const redisReply *entries)
{
    for (size_t i = 0; i < entries->elements && page->count < HISTORY_PAGE_EVENTS; i++) {
        const redisReply *entry = entries->element[i];
        struct event_id id = {0};
        if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || !parse_stream_id(entry->element[0]->str, &id))
            continue;
        memcpy(id.epoch, page->epoch, sizeof id.epoch);
        const redisReply *fields = entry->element[1];
        for (size_t f = 0; fields->type == REDIS_REPLY_ARRAY && f + 1 < fields->elements; f += 2) {
            if (strcmp(fields->element[f]->str, "message") != 0)
                continue;
            struct frame *frame = frame_event(fields->element[f + 1]->str, fields->element[f + 1]->len, &id);
            if (!frame)
                continue;
            frame->id = id; /* the stream's word about the order */
            page->frames[page->count++] = frame;
            break;
        }
    }
    page->is_more = entries->elements >= HISTORY_PAGE_EVENTS;
}

static void take_head(struct history_page *page, const redisReply *reply, struct event_id *out_first, bool *out_trimmed)
{
    const char *epoch = reply->element[0]->str;
    bool is_epoch = strlen(epoch) < sizeof page->epoch && epoch[strspn(epoch, "0123456789abcdef")] == '\0';
    snprintf(page->epoch, sizeof page->epoch, "%s", is_epoch ? epoch : ""); /* whatever stands there goes into frames */
    page->is_there = reply->element[1]->integer == 1;
    if (page->is_there) {
        (void)parse_stream_id(reply->element[2]->str, out_first);
        (void)parse_stream_id(reply->element[3]->str, &page->end);
        memcpy(page->end.epoch, page->epoch, sizeof page->end.epoch);
    }
    *out_trimmed = page->is_trimmed = reply->element[4]->integer == 1;
}

static bool is_zero(const struct event_id *id)
{
    return id->ms == 0 && id->seq == 0;
}

/* Whether entries after `after` are missing. `is_kept`: the stream holds that entry. One that is younger than the first
 * and is not there was lost with others, whatever the epoch says; an older one that a client named may be of a stream
 * that expired, with what followed it. */
static bool is_gap(const struct event_id *after, bool is_explicit, const struct history_page *page,
                   const struct event_id *first, bool trimmed, bool is_kept)
{
    if (after->epoch[0] && strcmp(after->epoch, page->epoch) != 0)
        return true; /* also when there is none any more: the data are gone, and nothing may ever follow */
    if (is_zero(after))
        return is_explicit && trimmed;
    if (!page->is_there)
        return is_explicit;
    return event_id_compare(after, first) < 0 ? trimmed || is_explicit : !is_kept;
}

enum status history_read(struct scope *sc, struct redis *events, const char *stream, const struct event_id *after,
                         bool is_explicit, struct history_page *out)
{
    memset(out, 0, sizeof *out);
    struct event_id first = {0}, beginning = {0};
    bool trimmed = false;
    scoped(redisReply) *reply = NULL;
    enum status s = ask(sc, events, stream, after, &reply);
    if (s != STATUS_OK || !reply)
        return s;
    take_head(out, reply->element[0], &first, &trimmed);
    out->is_truncated = is_gap(after, is_explicit, out, &first, trimmed, reply->element[0]->element[5]->integer > 0);
    scoped(redisReply) *whole = NULL;
    if (out->is_truncated && out->is_there) {
        s = ask(sc, events, stream, &beginning, &whole);
        if (s != STATUS_OK || !whole)
            return s;
        take_head(out, whole->element[0], &first, &trimmed);
    }
    take_entries(out, whole ? whole->element[1] : reply->element[1]);
    return STATUS_OK;
}

enum status history_end(struct scope *sc, struct redis *events, const char *stream, struct history_page *out)
{
    memset(out, 0, sizeof *out);
    struct event_id beginning = {0}, first = {0};
    bool trimmed;
    scoped(redisReply) *reply = NULL;
    const struct redis_call head = head_call(sc, events, stream, &beginning);
    enum status s = redis_script(sc, events, head_script, 3, head.argc, head.argv, NULL, &reply);
    if (s == STATUS_OK && !is_head(reply))
        s = fail(sc, STATUS_INTERNAL, "Redis: an answer of another form");
    if (s == STATUS_OK)
        take_head(out, reply, &first, &trimmed);
    return s;
}

void history_page_done(struct history_page *page)
{
    for (int i = 0; i < page->count; i++)
        frame_unref(page->frames[i]);
    page->count = 0;
}

void replay_release(struct replay *r)
{
    for (int i = 0; i < r->held_count; i++)
        frame_unref(r->held[i]);
    free(r->held);
    r->held = NULL;
    r->held_count = r->held_capacity = 0;
    r->held_bytes = 0;
}

static void hold(struct replay *r, struct frame *event)
{
    if (r->has_lost_held)
        return;
    if (r->held_bytes + event->len > HISTORY_HELD_BYTES) {
        replay_release(r);
        r->has_lost_held = true;
        return;
    }
    if (r->held_count == r->held_capacity) {
        r->held_capacity = r->held_capacity ? r->held_capacity * 2 : 8;
        r->held = must_realloc(r->held, (size_t)r->held_capacity * sizeof(struct frame *));
    }
    r->held[r->held_count++] = frame_ref(event);
    r->held_bytes += event->len;
}

enum replay_advice replay_live(struct replay *r, struct frame *event)
{
    if (!event->is_event)
        return REPLAY_SEND;
    if (!r->is_live) {
        hold(r, event);
        return REPLAY_HOLD;
    }
    if (r->position.epoch[0] && strcmp(r->position.epoch, event->id.epoch) != 0)
        return REPLAY_RESTART;
    if (event_id_compare(&event->id, &r->position) <= 0)
        return REPLAY_SKIP;
    r->position = event->id;
    return REPLAY_SEND;
}

unsigned replay_start(struct replay *r, const struct event_id *position)
{
    struct event_id kept = *position; /* may be r's own */
    replay_release(r);
    r->is_live = false;
    r->has_lost_held = false;
    r->position = kept;
    return ++r->generation;
}

void replay_next(struct replay *r, bool is_subscribed)
{
    r->has_lost_held = !is_subscribed;
}

bool replay_page_event(struct replay *r, const struct frame *event)
{
    if (event_id_compare(&event->id, &r->position) <= 0)
        return false;
    r->position = event->id;
    return true;
}

bool replay_page_end(struct replay *r, const struct history_page *page)
{
    if (page->epoch[0])
        memcpy(r->position.epoch, page->epoch, sizeof r->position.epoch);
    if (page->is_more || r->has_lost_held)
        return false;
    r->is_live = true;
    return true;
}
