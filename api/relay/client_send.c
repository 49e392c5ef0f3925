/* The queue of a connection: what is written to it, and what happens when it does not keep up. */
#include "api/relay/hub.h"

#include "common/clock.h"
#include "common/log.h"

#include <string.h>

enum { SLOW_GOODBYE_MS = 1000 }; /* who does not read will hardly read that */

void client_drop_queue(struct client *c)
{
    for (; c->queue_count > 0; c->queue_count--) {
        frame_unref(c->queue[c->queue_first]);
        c->queue_first = (c->queue_first + 1) % c->queue_capacity;
    }
    free(c->queue);
    c->queue = NULL;
    c->queue_first = c->queue_capacity = 0;
    c->pending_bytes = 0;
}

void client_push(struct client *c, struct frame *f)
{
    if (c->queue_count == c->queue_capacity) {
        int capacity = c->queue_capacity ? c->queue_capacity * 2 : 4;
        struct frame **queue = must_malloc((size_t)capacity * sizeof(struct frame *));
        for (int i = 0; i < c->queue_count; i++)
            queue[i] = c->queue[(c->queue_first + i) % c->queue_capacity];
        free(c->queue);
        c->queue = queue;
        c->queue_first = 0;
        c->queue_capacity = capacity;
    }
    c->queue[(c->queue_first + c->queue_count++) % c->queue_capacity] = frame_ref(f);
    c->pending_bytes += f->len;
    hub_mark_dirty(c);
}

static bool is_same_progress(const struct frame *a, const struct frame *b)
{
    return b->is_progress && strcmp(a->type, b->type) == 0 && strcmp(a->operation_id, b->operation_id) == 0;
}

/* Of the snapshots that wait only the newest of each kind is worth sending. What changes a state always stays. */
static void drop_stale_progress(struct client *c)
{
    const struct frame *newest[16];
    int known = 0, kept = 0;
    struct frame **list = must_malloc((size_t)c->queue_capacity * sizeof(struct frame *));
    for (int i = c->queue_count - 1; i >= 0; i--) {
        struct frame *f = c->queue[(c->queue_first + i) % c->queue_capacity];
        bool is_stale = false;
        for (int k = 0; f->is_progress && k < known && !is_stale; k++)
            is_stale = is_same_progress(newest[k], f);
        if (is_stale) {
            c->pending_bytes -= f->len;
            c->hub->tally.progress_dropped++;
            frame_unref(f);
            continue;
        }
        if (f->is_progress && known < (int)array_len(newest))
            newest[known++] = f;
        list[c->queue_capacity - ++kept] = f;
    }
    memmove(list, list + c->queue_capacity - kept, (size_t)kept * sizeof(struct frame *));
    free(c->queue);
    c->queue = list;
    c->queue_first = 0;
    c->queue_count = kept;
}

/* A reader that does not keep up is let go; the others never wait for it. */
static void cut_slow(struct client *c)
{
    log_info("websocket_slow", log_int("user", c->user_id), log_int("pending_bytes", (int64_t)c->pending_bytes));
    c->hub->tally.slow_readers++;
    if (c->speaks_resume) {
        client_drop_queue(c);
        client_close(c, CLOSE_RESTART, "too slow: reconnect with last_id");
        wheel_put(&c->hub->wheel, &c->timer, clock_monotonic_ms() + SLOW_GOODBYE_MS);
        return;
    }
    c->state = CLIENT_CLOSING;
    wire_cut(c, true);
}

/* Not "no byte at all": the kernel of a reader that stopped takes a little with every probe of its window, for a
 * minute. The looks are a second apart: it may have stopped a second before the first that saw it so. */
void client_look_slow(struct client *c, int64_t now_ms)
{
    int64_t most_ms = (c->hub->settings->ws_slow_seconds - 1) * 1000;
    bool has_own_rule = c->scan != NULL; /* it goes on where its client reads, and ends by itself */
    if (c->state >= CLIENT_CLOSING || !c->wire || has_own_rule || (c->queue_count == 0 && !wire_is_busy(c))) {
        c->stalled_since_ms = 0;
        return;
    }
    int64_t taken = wire_taken(c);
    if (taken < 0 || !c->stalled_since_ms || taken - c->taken_bytes >= LEAST_TAKEN_BYTES) {
        c->stalled_since_ms = now_ms;
        c->taken_bytes = taken;
    } else if (now_ms - c->stalled_since_ms >= most_ms) {
        c->speaks_resume = false; /* a goodbye would not be taken either */
        cut_slow(c);
    }
}

static bool has_room(struct client *c)
{
    size_t most = (size_t)c->hub->settings->ws_send_buffer_bytes;
    if (c->pending_bytes > most)
        drop_stale_progress(c);
    return c->pending_bytes <= most;
}

void client_send(struct client *c, struct frame *f)
{
    if (c->state >= CLIENT_CLOSING)
        return;
    if (has_room(c))
        client_push(c, f);
    else
        cut_slow(c);
}

static bool write_out(struct client *c, const unsigned char *bytes, size_t len)
{
    c->hub->tally.bytes_sent += (int64_t)len;
    if (wire_write(c, bytes, len))
        return true;
    c->hub->tally.writes_failed++;
    c->state = CLIENT_CLOSING;
    wire_cut(c, true);
    return false;
}

void client_write(struct client *c, const unsigned char *bytes, size_t len)
{
    (void)write_out(c, bytes, len);
}

/* How long a reader takes that does not take its frames at once. */
static void note_blocked(struct client *c)
{
    if (c->queue_count > 0 && c->blocked_ms == 0) {
        c->blocked_ms = clock_monotonic_ms();
    } else if (c->queue_count == 0 && c->blocked_ms) {
        tally_unblocked(c->blocked_ms);
        c->blocked_ms = 0;
    }
}

void client_flush(struct client *c)
{
    while (c->wire && c->queue_count > 0 && !wire_is_busy(c)) {
        struct frame *first = c->queue[c->queue_first];
        const unsigned char *bytes = first->bytes;
        size_t len = first->len;
        int count = 1;
        while (count < c->queue_count) {
            const struct frame *f = c->queue[(c->queue_first + count) % c->queue_capacity];
            if (len + f->len > WRITE_BYTES)
                break;
            if (count == 1)
                memcpy(c->hub->scratch, first->bytes, first->len);
            memcpy(c->hub->scratch + len, f->bytes, f->len);
            bytes = c->hub->scratch;
            len += f->len;
            count++;
        }
        bool is_broken = !write_out(c, bytes, len);
        for (int i = 0; i < count; i++) {
            struct frame *f = c->queue[c->queue_first];
            c->pending_bytes -= f->len;
            c->queue_first = (c->queue_first + 1) % c->queue_capacity;
            c->queue_count--;
            frame_unref(f);
        }
        if (is_broken)
            return;
    }
    note_blocked(c);
    if (c->queue_count > 0 && c->wire)
        wire_want_write(c);
    else if (c->queue_capacity > 64)
        client_drop_queue(c); /* it is empty: the memory goes back */
}
