#include "api/relay/channel.h"

#include "common/arena.h"

enum { LINGER_MS = 10000 };

static struct channel *channel_of(struct table_node *node)
{
    return (struct channel *)node;
}

struct channel *channel_find(const struct channels *c, const char *name)
{
    return channel_of(table_find(&c->table, name));
}

static void subscribe(struct channels *c, struct channel *channel)
{
    if (channel->state != CHANNEL_NONE || !port_is_up(c->port))
        return;
    channel->state = CHANNEL_SUBSCRIBING;
    port_add(c->port, channel->node.name);
}

struct channel *channel_join(struct channels *c, const char *name, struct listener *l)
{
    struct channel *channel = channel_find(c, name);
    if (!channel) {
        channel = must_calloc(1, sizeof *channel);
        table_add(&c->table, &channel->node, name);
    }
    l->channel = channel;
    l->next = channel->first;
    if (l->next)
        l->next->link = &l->next;
    l->link = &channel->first;
    channel->first = l;
    channel->listeners++;
    subscribe(c, channel); /* while it is being unsubscribed: after that */
    return channel;
}

void channel_leave(struct listener *l, int64_t now_ms)
{
    if (!l->channel)
        return;
    *l->link = l->next;
    if (l->next)
        l->next->link = l->link;
    if (--l->channel->listeners == 0)
        l->channel->idle_since_ms = now_ms;
    l->channel = NULL;
}

static void subscribe_again(struct table_node *node, void *context)
{
    struct channel *channel = channel_of(node);
    if (channel->listeners > 0)
        subscribe(context, channel);
}

void channels_up(struct channels *c)
{
    table_each(&c->table, subscribe_again, c);
}

static void forget_state(struct table_node *node, void *unused)
{
    (void)unused;
    channel_of(node)->state = CHANNEL_NONE;
}

void channels_lost(struct channels *c)
{
    table_each(&c->table, forget_state, NULL);
}

bool channel_subscribed(struct channels *c, struct channel *channel)
{
    (void)c;
    if (channel->state == CHANNEL_SUBSCRIBING)
        channel->state = CHANNEL_LIVE;
    return channel->state == CHANNEL_LIVE && channel->listeners > 0;
}

void channel_unsubscribed(struct channels *c, struct channel *channel)
{
    channel->state = CHANNEL_NONE;
    if (channel->listeners > 0)
        subscribe(c, channel);
}

static void free_channel(struct table *t, struct channel *channel)
{
    table_remove(t, &channel->node);
    free(channel);
}

struct tidying {
    struct channels *channels;
    int64_t now_ms;
};

static void tidy_one(struct table_node *node, void *context)
{
    const struct tidying *tidying = context;
    struct channel *channel = channel_of(node);
    if (channel->listeners > 0 || tidying->now_ms - channel->idle_since_ms < LINGER_MS)
        return;
    if (channel->state == CHANNEL_NONE) {
        free_channel(&tidying->channels->table, channel);
    } else if (channel->state == CHANNEL_LIVE) {
        channel->state = CHANNEL_UNSUBSCRIBING;
        port_remove(tidying->channels->port, channel->node.name);
    }
}

void channels_tidy(struct channels *c, int64_t now_ms)
{
    table_each(&c->table, tidy_one, &(struct tidying){c, now_ms});
}

static void free_one(struct table_node *node, void *context)
{
    free_channel(context, channel_of(node));
}

void channels_done(struct channels *c)
{
    table_each(&c->table, free_one, &c->table);
    table_done(&c->table);
}
