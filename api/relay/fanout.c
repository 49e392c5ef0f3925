#include "api/relay/fanout.h"

#include "api/relay/hub.h"
#include "api/relay/recent.h"

#include <string.h>

enum {
    BATCH_BYTES = 32 << 10, /* leaves at once: half of what a socket's buffer takes */
};

void fanout_drop(struct channel *channel)
{
    struct batch *b = &channel->batch;
    for (int i = 0; i < b->count; i++)
        frame_unref(b->frames[i]);
    free(b->frames);
    *b = (struct batch){0};
}

/* True when one look at the ends tells who needs all of it: events of one epoch whose ids rise. */
static bool is_run(const struct batch *b)
{
    for (int i = 0; i < b->count; i++) {
        const struct frame *f = b->frames[i];
        if (!f->is_event || strcmp(f->id.epoch, b->frames[0]->id.epoch) != 0)
            return false;
        if (i > 0 && event_id_compare(&f->id, &b->frames[i - 1]->id) <= 0)
            return false;
    }
    return true;
}

/* The whole batch in one piece. NULL = there is nothing to tell in this format. */
static struct frame *block_of(const struct batch *b, enum frame_format format)
{
    if (b->count == 1) {
        struct frame *only = frame_rendered(b->frames[0], format);
        return only ? frame_ref(only) : NULL;
    }
    scoped_text bytes = {0};
    for (int i = 0; i < b->count; i++) {
        const struct frame *f = frame_rendered(b->frames[i], format);
        if (f)
            text_append(&bytes, f->bytes, f->len);
    }
    return bytes.len ? frame_raw(bytes.data, bytes.len) : NULL;
}

struct blocks {
    struct frame *of[FRAME_FORMATS];
    bool is_made[FRAME_FORMATS];
    int receivers[FRAME_FORMATS];
};

/* The short way: nothing waits for this client, and it lacks all of the batch and nothing before it. */
static bool write_block(struct client *c, const struct batch *b, struct blocks *blocks)
{
    if (c->queue_count > 0 || wire_is_busy(c) || !client_takes_run(c, &b->frames[0]->id, &b->frames[b->count - 1]->id))
        return false;
    enum frame_format format = c->format;
    if (!blocks->is_made[format]) {
        blocks->is_made[format] = true;
        blocks->of[format] = block_of(b, format);
    }
    const struct frame *block = blocks->of[format];
    if (block)
        client_write(c, block->bytes, block->len);
    blocks->receivers[format]++;
    return true;
}

/* The stream's ids are milliseconds of Redis' clock, which is near enough to ours for a histogram. */
static void measure(const struct batch *b, const struct blocks *blocks, const int *apart)
{
    for (int i = 0; i < b->count; i++) {
        struct frame *f = b->frames[i];
        int deliveries = apart ? apart[i] : 0;
        for (int format = 0; format < FRAME_FORMATS; format++) {
            if (blocks->receivers[format] && frame_rendered(f, format))
                deliveries += blocks->receivers[format];
        }
        relay_count_event(f->type, f->len, f->is_event ? (int64_t)f->id.ms : 0, deliveries);
    }
}

static void flush(struct channel *channel)
{
    /* Whoever is delivered to may make the channel get more: that is the next batch. */
    struct batch b = channel->batch;
    channel->batch = (struct batch){0};
    struct blocks blocks = {0};
    int *apart = NULL;
    bool may_be_short = is_run(&b);
    for (struct listener *l = channel->first, *next; l; l = next) {
        next = l->next;
        struct client *c = client_of(l);
        if (may_be_short && write_block(c, &b, &blocks))
            continue;
        if (!apart)
            apart = must_calloc((size_t)b.count, sizeof *apart);
        for (int i = 0; i < b.count; i++)
            apart[i] += client_deliver(c, b.frames[i]) ? 1 : 0;
    }
    measure(&b, &blocks, apart);
    for (int i = 0; i < FRAME_FORMATS; i++)
        frame_unref(blocks.of[i]);
    free(apart);
    for (int i = 0; i < b.count; i++)
        frame_unref(b.frames[i]);
    free(b.frames);
}

void fanout_add(struct hub *hub, struct channel *channel, struct frame *f)
{
    struct batch *b = &channel->batch;
    tally_queued(&hub->tally);
    if (b->count == 0) {
        channel->next_full = hub->full;
        hub->full = channel;
    }
    if (b->count == b->capacity) {
        b->capacity = b->capacity ? b->capacity * 2 : 8;
        b->frames = must_realloc(b->frames, (size_t)b->capacity * sizeof(struct frame *));
    }
    b->frames[b->count++] = frame_ref(f);
    recent_add(channel, f);
    b->bytes += f->len;
    if (b->bytes >= BATCH_BYTES)
        fanout_flush(hub);
}

void fanout_flush(struct hub *hub)
{
    while (hub->full) {
        struct channel *channel = hub->full;
        hub->full = channel->next_full;
        channel->next_full = NULL;
        flush(channel);
    }
}
