/* What newcomers to a channel get without asking Redis each for themselves. When a server comes back, everybody is
 * there again at once and wants the same history: it is read once a channel, for those who wait at that moment and for
 * those who come within RECENT_MS.
 *
 * It is whole because it began while the channel was subscribed: the page that was read then, and all events that came
 * on the channel since. What Redis lost on the way is found by the look at the stream's end, as for everybody. */
#pragma once

#include "api/relay/history.h"

struct channel;
struct client;
struct hub;

enum {
    RECENT_MS = 2000,
    RECENT_EVENTS = HISTORY_PAGE_EVENTS,
    RECENT_BYTES = 128 << 10,
    RECENT_BYTES_IN_ALL = 32 << 20
};

enum recent_advice {
    RECENT_ASK,  /* nothing here for it: it asks by itself */
    RECENT_WAIT, /* it is being read: client_page_on is called when it is there, or is not going to be */
    RECENT_TAKE, /* recent_give() */
};

/* What a client of a live channel does who is at `position`; `is_explicit` as in history_read. May begin to read. */
enum recent_advice recent_ask(struct client *c, const struct event_id *position, bool is_explicit);
/* Puts what follows its position on the client's queue; returns where it stands then. */
struct event_id recent_give(struct client *c, const struct event_id *position);
/* An event came on the channel. */
void recent_add(struct channel *channel, struct frame *f);
/* It holds no more, or is too old. */
void recent_drop(struct channel *channel);
void recent_tidy(struct channel *channel, int64_t now_ms);
