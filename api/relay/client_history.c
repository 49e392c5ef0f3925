/* Replay, then live: what a connection gets, in order, once. */
#include "api/relay/hub.h"

#include "api/relay/recent.h"
#include "common/clock.h"
#include "common/json.h"

#include <string.h>

static bool is_subscribed(const struct client *c)
{
    return c->listener.channel && c->listener.channel->state == CHANNEL_LIVE;
}

static bool send_rendered(struct client *c, struct frame *f)
{
    struct frame *rendered = frame_rendered(f, c->format);
    if (rendered)
        client_send(c, rendered);
    return rendered != NULL;
}

/* Without anything that only a look-up of its own can tell. */
static bool may_take_recent(const struct client *c)
{
    return c->kind == WS_OPERATION && !c->was_truncated && (!c->needs_state || c->answer.state);
}

static void release_held(struct client *c);

static void take_recent(struct client *c)
{
    if (c->needs_state)
        send_rendered(c, c->answer.state);
    frame_unref(c->answer.state);
    c->answer.state = NULL;
    c->needs_state = c->wants_page = c->is_explicit = false;
    c->replay.position = recent_give(c, &c->replay.position);
    c->replay.is_live = c->is_position_known = true;
    c->hub->tally.replays++;
    release_held(c);
    if (c->ops->settled)
        c->ops->settled(c, STATUS_OK);
}

/* Asks for the next page once what was sent has left. Only one that is read after the channel was subscribed may be the
 * last before live events: what is published between an earlier one and the subscription would be lost. So an earlier
 * one, which a client gets for the state's sake, counts as one during which events were dropped. */
void client_page_on(struct client *c)
{
    if (!c->wants_page || c->is_page_asked || c->state != CLIENT_OPEN)
        return;
    if (!is_subscribed(c) && !c->needs_state)
        return; /* asked again when the channel is subscribed */
    if (c->queue_count > 0 || wire_is_busy(c)) {
        wire_want_write(c);
        return;
    }
    if (is_subscribed(c) && may_take_recent(c)) {
        enum recent_advice advice = recent_ask(c, &c->replay.position, c->is_explicit);
        c->waits_for_recent = advice == RECENT_WAIT;
        if (advice == RECENT_TAKE)
            take_recent(c);
        if (advice != RECENT_ASK)
            return;
    }
    c->wants_page = false;
    replay_next(&c->replay, is_subscribed(c));
    if (!lookup_page(c)) {
        c->state = CLIENT_CLOSING;
        wire_cut(c, false);
        return;
    }
    c->is_page_asked = true;
}

void client_writeable(struct client *c)
{
    client_flush(c);
    client_page_on(c);
    scan_writeable(c);
}

void client_subscribed(struct client *c)
{
    if (c->kind == WS_DIRECTORY_SCAN) {
        bool is_there = c->state == CLIENT_SUBSCRIBING || c->state == CLIENT_OPEN;
        if (is_there && !c->has_last_word && !lookup_last_word(c)) /* it may have come while nobody listened */
            wire_cut(c, false);
        c->replay.is_live = true;
        c->state = c->state == CLIENT_SUBSCRIBING ? CLIENT_OPEN : c->state;
        return;
    }
    if (c->state == CLIENT_SUBSCRIBING)
        c->state = CLIENT_OPEN;
    client_page_on(c);
}

void client_suspend(struct client *c)
{
    if (c->state != CLIENT_OPEN || c->kind == WS_DIRECTORY_SCAN || !c->is_position_known)
        return;
    if (c->replay.is_live || c->is_page_asked || c->wants_page) {
        replay_start(&c->replay, &c->replay.position);
        c->wants_page = true;
    }
}

/* Begins anew at the beginning of what is kept, after a word about it. */
static void begin_anew(struct client *c)
{
    c->was_truncated = true;
    c->needs_state = c->kind == WS_OPERATION;
    c->is_explicit = false;
    replay_start(&c->replay, &(struct event_id){0});
    c->wants_page = true;
    client_page_on(c);
}

bool client_deliver(struct client *c, struct frame *f)
{
    if (c->state != CLIENT_OPEN && c->state != CLIENT_SUBSCRIBING)
        return false;
    if (c->kind == WS_DIRECTORY_SCAN)
        c->has_last_word = c->has_last_word || strcmp(f->type, "completed") == 0 || strcmp(f->type, "error") == 0;
    switch (replay_live(&c->replay, f)) {
    case REPLAY_SEND:
        c->is_position_known = true;
        return send_rendered(c, f);
    case REPLAY_RESTART:
        begin_anew(c);
        return false;
    case REPLAY_HOLD:
        c->hub->tally.events_held++;
        return false;
    case REPLAY_SKIP:
        return false;
    }
    return false;
}

bool client_takes_run(struct client *c, const struct event_id *first, const struct event_id *last)
{
    struct replay *r = &c->replay;
    if (c->state != CLIENT_OPEN || !r->is_live ||
        (r->position.epoch[0] && strcmp(r->position.epoch, first->epoch) != 0) ||
        event_id_compare(first, &r->position) <= 0)
        return false;
    r->position = *last;
    c->is_position_known = true;
    return true;
}

/* What was held while pages were read. */
static void release_held(struct client *c)
{
    struct replay held = c->replay; /* the frames, while begin_anew() may start the client's own */
    c->replay.held = NULL;
    c->replay.held_count = c->replay.held_capacity = 0;
    c->replay.held_bytes = 0;
    for (int i = 0; i < held.held_count && c->state == CLIENT_OPEN; i++) {
        enum replay_advice advice = replay_live(&c->replay, held.held[i]);
        struct frame *rendered = advice == REPLAY_SEND ? frame_rendered(held.held[i], c->format) : NULL;
        if (rendered)
            client_push(c, rendered); /* bounded like a page */
        if (advice == REPLAY_RESTART)
            begin_anew(c); /* from now on the rest is held again, or in the stream */
    }
    replay_release(&held);
}

static void send_truncated(struct client *c)
{
    c->hub->tally.histories_truncated++;
    char now[28];
    clock_iso(now);
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "timestamp", now);
    json_text(&json, "type", "history_truncated");
    if (c->kind == WS_OPERATION)
        json_text(&json, "operation_id", c->target);
    json_open(&json, "data", '{');
    if (c->kind == WS_OPERATION)
        json_text(&json, "operation_id", c->target);
    json_text(&json, "reason", "events before these are not kept any more");
    json_close(&json, '}');
    json_close(&json, '}');
    struct frame *f = frame_text(json.data, json.len);
    send_rendered(c, f);
    frame_unref(f);
}

/* Without Redis there is no history: the state, and what comes once it is back. */
static void open_without_history(struct client *c, enum status status)
{
    c->wants_page = true; /* tried again every second, and when the channel is subscribed */
    c->hub->has_failed_pages = true;
    if (c->ops->settled)
        c->ops->settled(c, status);
}

void client_paged(struct client *c, enum status status, unsigned generation, const struct history_page *page,
                  struct frame *state)
{
    c->is_page_asked = false;
    if (c->state != CLIENT_OPEN)
        return;
    if (generation != c->replay.generation) {
        client_page_on(c); /* it began anew meanwhile, and had to wait: one page at a time is asked for a client */
        return;
    }
    if (c->needs_state && !state && status != STATUS_OK) {
        client_close(c, client_is_server_fault(status) ? CLOSE_FAULT : CLOSE_POLICY,
                     client_is_server_fault(status) ? "the database does not answer" : "the operation is gone");
        return;
    }
    bool has_page = status == STATUS_OK;
    bool is_truncated = c->was_truncated || (has_page && page->is_truncated);
    if (is_truncated && has_page) {
        send_truncated(c);
        if (page->is_truncated) {
            c->replay.position = (struct event_id){0};
            c->needs_state = false; /* `state` came with every page that may need it */
        }
    }
    if (state && (c->needs_state || (is_truncated && has_page)))
        send_rendered(c, state);
    if (state)
        c->needs_state = false;
    if (!has_page) {
        open_without_history(c, status);
        return;
    }
    c->was_truncated = false;
    for (int i = 0; i < page->count && c->state == CLIENT_OPEN; i++) {
        struct frame *f = page->frames[i];
        if (!replay_page_event(&c->replay, f))
            continue;
        struct frame *rendered = frame_rendered(f, c->format);
        if (rendered)
            client_push(c, rendered); /* a page is bounded, and the next one waits until this one left */
        c->hub->tally.events_replayed++;
    }
    c->is_explicit = !replay_page_end(&c->replay, page); /* when there is more, a stream that vanished is a gap */
    if (!c->is_explicit) {
        c->is_position_known = true;
        c->hub->tally.replays++;
        release_held(c);
        if (c->ops->settled)
            c->ops->settled(c, STATUS_OK);
    } else {
        c->wants_page = true;
        client_page_on(c);
    }
}

void client_checked(struct client *c, const struct event_id *end, bool is_final_check)
{
    if (c->state != CLIENT_OPEN || c->kind == WS_DIRECTORY_SCAN || !c->replay.is_live)
        return;
    if (!c->is_position_known) {
        c->replay.position = *end;
        c->is_position_known = true;
    }
    bool is_other = c->replay.position.epoch[0] && strcmp(c->replay.position.epoch, end->epoch) != 0;
    if (is_other || (is_final_check && event_id_compare(&c->replay.position, end) < 0)) {
        /* A page decides: the end may have been looked at before the event that the position stands at. */
        replay_start(&c->replay, &c->replay.position);
        c->wants_page = true;
        client_page_on(c);
    }
}
