/* The one Redis subscription of an instance. Reconnects by itself with back-off and jitter, and when nothing was heard
 * for too long: a check that publishes to the subscriber's own channel (subscriber_pulse) makes sure that there always
 * is something to hear. All on the loop. */
#pragma once

#include "common/redis.h"

#include <uv.h>

struct subscriber;

struct subscriber_events {
    void *context;
    void (*on_up)(void *context);   /* connected: subscribe to everything again */
    void (*on_lost)(void *context); /* no channel is subscribed any more */
    void (*on_subscribed)(void *context, const char *channel);
    void (*on_unsubscribed)(void *context, const char *channel);
    void (*on_message)(void *context, const char *channel, const char *bytes, size_t len);
};

/* `channel` is the subscriber's own; what others publish there is told by on_message as well. */
enum status subscriber_new(struct scope *sc, uv_loop_t *loop, const struct redis_address *address, const char *channel,
                           const struct subscriber_events *events, struct subscriber **out) must_check;
/* Nothing happens while not connected. A channel that is being unsubscribed must not be subscribed before
 * on_unsubscribed. */
void subscriber_add(struct subscriber *s, const char *channel);
void subscriber_remove(struct subscriber *s, const char *channel);
/* Once a second. */
void subscriber_tick(struct subscriber *s);
/* Closes the connection and its handles; the loop must run once more before subscriber_free. */
void subscriber_stop(struct subscriber *s);
void subscriber_free(struct subscriber *s);
