/* The wire of long polls: what would be written is gathered, and answered in one piece as soon as everything that is
 * kept is there. */
#include "api/relay/stream_state.h"

#include "common/clock.h"

#include <string.h>

enum { HISTORY_GRACE_MS = 5000 /* a history that cannot be read by then is said to be away */ };

static size_t most_bytes(const struct client *c)
{
    return (size_t)c->hub->settings->ws_send_buffer_bytes;
}

static bool is_busy(const struct client *c)
{
    return poll_answer_is_full(&stream_of(c)->gathered, most_bytes(c));
}

static bool gather(struct client *c, const unsigned char *bytes, size_t len)
{
    struct stream *s = stream_of(c);
    poll_answer_take(&s->gathered, (const char *)bytes, len);
    stream_ready(s);
    return true;
}

static void want_write(struct client *c)
{
    stream_ready(stream_of(c));
}

static void cut(struct client *c, bool is_hard)
{
    struct stream *s = stream_of(c);
    (void)is_hard;
    s->is_cut = true;
    stream_ready(s);
}

static struct frame *goodbye(int code, const char *reason)
{
    scoped_text line = {0};
    text_printf(&line, "!%d %s", code, reason);
    for (char *p = line.data; *p; p++)
        *p = *p == '\n' ? ' ' : *p;
    text_putc(&line, '\n');
    return frame_raw(line.data, line.len);
}

static void settled(struct client *c, enum status status)
{
    struct stream *s = stream_of(c);
    if (!s)
        return;
    s->trouble = status;
    stream_ready(s);
}

/* Whether it is really late is poll_turn's to say. */
static void due(struct client *c)
{
    struct stream *s = stream_of(c);
    c->answer_at_ms = s->due_ms + HISTORY_GRACE_MS;
    stream_ready(s);
}

static void drop(struct client *c)
{
    if (c->wire)
        stream_refuse(stream_of(c), STATUS_BUSY, "too much at once");
}

static void open_client(struct client *c)
{
    struct stream *s = stream_of(c);
    if (!s)
        return; /* it went while it was looked up */
    client_established(c);
    if (c->state == CLIENT_CLOSING) {
        stream_refuse_client(s, c);
        return;
    }
    stream_count(s);
    c->speaks_resume = false; /* there is nothing to say to it but the answer */
    s->start = c->replay.position;
    stream_ready(s);
}

const struct wire_ops poll_wire = {
    .open = open_client,
    .drop = drop,
    .is_busy = is_busy,
    .write = gather,
    .want_write = want_write,
    .cut = cut,
    .goodbye = goodbye,
    .settled = settled,
    .due = due,
};

/* ---- its turns ---- */

static bool has_everything(const struct client *c)
{
    return c->state == CLIENT_OPEN && c->replay.is_live && c->is_position_known && c->queue_count == 0;
}

static void reply(struct stream *s, bool is_whole)
{
    struct client *c = s->client;
    struct poll_answer *a = &s->gathered;
    char next[64];
    if (is_whole)
        event_id_text(&c->replay.position, next);
    else if (a->last_id[0])
        memcpy(next, a->last_id, sizeof next);
    else
        event_id_text(&s->start, next);
    /* The last event was published before we looked, so it is here or was told before or is not kept any more. */
    a->has_ended = c->kind == WS_OPERATION && (a->has_ended || (is_whole && c->answer.is_announced));
    poll_answer_write(a, &s->body, next);
    stream_reply(s);
}

static void say_goodbye(struct stream *s)
{
    const struct client *c = s->client;
    const struct poll_answer *a = &s->gathered;
    bool is_expired = c->expires_at && clock_wall_ms() >= c->expires_at * 1000;
    enum status status = a->goodbye != CLOSE_POLICY ? STATUS_UNAVAILABLE
                         : is_expired               ? STATUS_UNAUTHENTICATED
                                                    : STATUS_FORBIDDEN;
    stream_refuse(s, status, a->reason);
}

static bool is_away(const struct client *c)
{
    return !port_is_up(c->hub->port) || !c->is_position_known;
}

/* Never an empty answer that hides events. */
void poll_turn(struct stream *s)
{
    struct client *c = s->client;
    if (c->state == CLIENT_OPENING && !s->is_cut)
        return;
    if (c->state != CLIENT_OPENING)
        client_writeable(c);
    const struct poll_answer *a = &s->gathered;
    int64_t now = clock_monotonic_ms();
    bool has_all = has_everything(c), is_due = now >= s->due_ms;
    if (a->goodbye)
        say_goodbye(s);
    else if (poll_answer_is_full(a, most_bytes(c)))
        reply(s, false);
    else if (s->is_cut)
        a->count > 0 ? reply(s, false) : stream_refuse(s, STATUS_BUSY, "this server is about to end");
    else if (s->trouble != STATUS_OK)
        stream_refuse(s, s->trouble, "the history cannot be read");
    else if (has_all && (a->count > 0 || is_due || (c->kind == WS_OPERATION && c->answer.is_announced)))
        reply(s, true);
    else if (!has_all && (is_away(c) || now >= s->due_ms + HISTORY_GRACE_MS))
        stream_refuse(s, STATUS_UNAVAILABLE, "the history cannot be read");
}
