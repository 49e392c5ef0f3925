/* Who listens to what: Redis channels and their listeners on this instance. A channel is subscribed while somebody
 * listens and for some seconds more. */
#pragma once

#include "api/relay/feed.h"
#include "api/relay/table.h"

#include "common/message.h"

#include <stdbool.h>

struct frame;
struct recent;

enum channel_state { CHANNEL_NONE, CHANNEL_SUBSCRIBING, CHANNEL_LIVE, CHANNEL_UNSUBSCRIBING };

/* What arrived in this turn of the loop (fanout.h). */
struct batch {
    struct frame **frames;
    int count, capacity;
    size_t bytes;
};

struct channel {
    struct table_node node; /* the name, with REDIS_PREFIX */
    enum channel_state state;
    struct listener *first;
    int listeners;
    int64_t idle_since_ms; /* when the last one left */
    struct event_id end;   /* the stream's last id when it was looked at; epoch "" = not yet */
    int64_t checked_at_ms; /* then */
    bool is_checking;
    struct recent *recent;    /* recent.h; NULL = none */
    int64_t has_no_recent_ms; /* it was tried then, in vain; 0 = not */
    struct batch batch;
    struct channel *next_full; /* of those with a batch */
};

/* Lies inside the one that listens. */
struct listener {
    struct channel *channel; /* NULL = none */
    struct listener *next, **link;
};

struct channels {
    struct table table;
    struct port *port;
};

struct channel *channel_join(struct channels *c, const char *name, struct listener *l);
void channel_leave(struct listener *l, int64_t now_ms);
struct channel *channel_find(const struct channels *c, const char *name);
/* The subscription's answers. */
void channels_up(struct channels *c);
void channels_lost(struct channels *c);
/* True when somebody waits for it. */
bool channel_subscribed(struct channels *c, struct channel *channel);
void channel_unsubscribed(struct channels *c, struct channel *channel);
/* Gives up channels that nobody listens to any more. */
void channels_tidy(struct channels *c, int64_t now_ms);
/* Their batches and what is recent must be gone. */
void channels_done(struct channels *c);
