/* The one Redis subscription of an instance, shared by its loops. Each loop has a port: what it asks for by its port
 * comes there and nowhere else, on its own thread. The subscription lives on the loop of the first port. */
#pragma once

#include "api/relay/subscriber.h"

enum {
    FEED_PORTS = 16,
    FEED_WAITING_BYTES = 8 << 20, /* for a loop that does not keep up; more: it is told that all is lost, and reads what
                                     it missed in the streams */
};

struct feed;
struct port;

/* `loop` will be the first port's. `channel` is the feed's own (subscriber.h); what is published there comes out of all
 * ports, and it lives as long as the feed. */
enum status feed_new(struct scope *sc, uv_loop_t *loop, const struct redis_address *address, const char *channel,
                     struct feed **out) must_check;
/* Before any loop runs; `loop` is where the events come. */
enum status port_new(struct scope *sc, struct feed *feed, uv_loop_t *loop, const struct subscriber_events *events,
                     struct port **out) must_check;
/* On the port's loop. Nothing happens while not connected: on_up comes, then everything is to be asked for again. A
 * channel that is being removed must not be added before on_unsubscribed. on_subscribed may be called before port_add
 * returns. */
void port_add(struct port *p, const char *channel);
void port_remove(struct port *p, const char *channel);
bool port_is_up(const struct port *p);
/* Any thread. */
bool feed_is_up(const struct feed *f);
/* Closes its handle; the loop must run once more. The first port, whose loop the subscription is on, last. */
void port_stop(struct port *p);
/* When all loops are done; frees the ports, too. */
void feed_free(struct feed *f);
