#include "api/relay/feed.h"

#include "api/relay/table.h"
#include "common/log.h"

#include <pthread.h>
#include <string.h>

enum {
    TICK_MS = 1000,
    TURN_BYTES = 64 << 10, /* handed over at a time: sockets take more only when the loop has gone round */
};

enum note_kind { NOTE_UP, NOTE_LOST, NOTE_SUBSCRIBED, NOTE_UNSUBSCRIBED, NOTE_MESSAGE, NOTE_ADD, NOTE_REMOVE };

/* What one thread tells another. */
struct note {
    struct note *next;
    enum note_kind kind;
    int port;
    size_t len;
    char *bytes; /* behind the name; of a message */
    char name[];
};

/* A queue into a loop. */
struct inbox {
    uv_async_t wake;
    pthread_mutex_t lock; /* guards what follows */
    struct note *first, **last;
    size_t bytes;
    bool is_closed;
};

struct port {
    struct feed *feed;
    int number;
    struct subscriber_events events;
    struct inbox inbox; /* not used by the first */
    struct note *rest;  /* of what was taken out of it */
    bool is_up;
};

enum entry_state { ENTRY_NONE, ENTRY_SUBSCRIBING, ENTRY_LIVE, ENTRY_UNSUBSCRIBING };

/* A channel that some port wants, or wanted. */
struct entry {
    struct table_node node;
    enum entry_state state;
    unsigned wanted; /* a bit for each port */
};

struct feed {
    struct subscriber *subscriber;
    const char *own; /* its channel */
    struct table entries;
    struct port ports[FEED_PORTS];
    int port_count;
    struct inbox inbox; /* from the other loops */
    uv_timer_t tick;
    _Atomic bool is_up;
};

/* ---- between threads ---- */

static enum status open_inbox(struct scope *sc, struct inbox *box, uv_loop_t *loop, uv_async_cb on_wake, void *context)
{
    box->last = &box->first;
    pthread_mutex_init(&box->lock, NULL);
    box->wake.data = context;
    return uv_async_init(loop, &box->wake, on_wake) == 0 ? STATUS_OK
                                                         : fail(sc, STATUS_INTERNAL, "a relay's loop cannot be woken");
}

static void free_notes(struct note *list)
{
    for (struct note *next; list; list = next) {
        next = list->next;
        free(list);
    }
}

static struct note *take_notes(struct inbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct note *list = box->first;
    box->first = NULL;
    box->last = &box->first;
    box->bytes = 0;
    pthread_mutex_unlock(&box->lock);
    return list;
}

static void close_inbox(struct inbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->is_closed = true;
    pthread_mutex_unlock(&box->lock);
    free_notes(take_notes(box));
    uv_close((uv_handle_t *)&box->wake, NULL);
}

static struct note *note_new(enum note_kind kind, int port, const char *name, const char *bytes, size_t len)
{
    size_t name_size = strlen(name) + 1;
    struct note *n = must_malloc(sizeof *n + name_size + len);
    *n = (struct note){.kind = kind, .port = port, .len = len, .bytes = n->name + name_size};
    memcpy(n->name, name, name_size);
    if (len)
        memcpy(n->bytes, bytes, len);
    return n;
}

/* False when too much waits: it was not put. */
static bool put_note(struct inbox *box, struct note *n, size_t most_bytes)
{
    pthread_mutex_lock(&box->lock);
    bool is_put = !box->is_closed && box->bytes + n->len <= most_bytes;
    if (is_put) {
        *box->last = n;
        box->last = &n->next;
        box->bytes += sizeof *n + n->len;
        uv_async_send(&box->wake);
    }
    pthread_mutex_unlock(&box->lock);
    if (!is_put)
        free(n);
    return is_put;
}

/* ---- from the feed to a port ---- */

static void hand_over(struct port *p, enum note_kind kind, const char *name, const char *bytes, size_t len)
{
    switch (kind) {
    case NOTE_UP:
        p->is_up = true;
        p->events.on_up(p->events.context);
        break;
    case NOTE_LOST:
        p->is_up = false;
        p->events.on_lost(p->events.context);
        break;
    case NOTE_SUBSCRIBED:
        p->events.on_subscribed(p->events.context, name);
        break;
    case NOTE_UNSUBSCRIBED:
        p->events.on_unsubscribed(p->events.context, name);
        break;
    case NOTE_MESSAGE:
        p->events.on_message(p->events.context, name, bytes, len);
        break;
    case NOTE_ADD:
    case NOTE_REMOVE:
        break;
    }
}

static struct entry *find(const struct feed *f, const char *name)
{
    return (struct entry *)table_find(&f->entries, name);
}

static void forget(struct feed *f, struct entry *e)
{
    table_remove(&f->entries, &e->node);
    free(e);
}

/* Brings the subscription to what is wanted. */
static void settle(struct feed *f, struct entry *e)
{
    if (e->wanted && e->state == ENTRY_NONE) {
        e->state = ENTRY_SUBSCRIBING;
        subscriber_add(f->subscriber, e->node.name);
    } else if (!e->wanted && e->state == ENTRY_LIVE) {
        e->state = ENTRY_UNSUBSCRIBING;
        subscriber_remove(f->subscriber, e->node.name);
    } else if (!e->wanted && e->state == ENTRY_NONE) {
        forget(f, e);
    }
}

static void want_no_more(struct table_node *node, void *context)
{
    const struct port *p = context;
    struct entry *e = (struct entry *)node;
    e->wanted &= ~(1u << p->number);
    settle(p->feed, e);
}

/* It reads what it missed in the streams, as after an outage, and asks anew for what it still wants. */
static void overflow(struct port *p)
{
    log_warning("relay_loop_lags", log_int("loop", p->number));
    free_notes(take_notes(&p->inbox));
    table_each(&p->feed->entries, want_no_more, p);
    (void)put_note(&p->inbox, note_new(NOTE_LOST, p->number, "", NULL, 0), SIZE_MAX);
    (void)put_note(&p->inbox, note_new(NOTE_UP, p->number, "", NULL, 0), SIZE_MAX);
}

static void tell(struct port *p, enum note_kind kind, const char *name, const char *bytes, size_t len)
{
    if (p->number == 0)
        hand_over(p, kind, name, bytes, len);
    else if (!put_note(&p->inbox, note_new(kind, p->number, name, bytes, len),
                       kind == NOTE_MESSAGE ? FEED_WAITING_BYTES : SIZE_MAX) &&
             kind == NOTE_MESSAGE)
        overflow(p);
}

static void tell_wanting(struct feed *f, unsigned wanted, enum note_kind kind, const char *name, const char *bytes,
                         size_t len)
{
    for (int i = 0; i < f->port_count; i++) {
        if (wanted & 1u << i)
            tell(&f->ports[i], kind, name, bytes, len);
    }
}

static void on_port_wake(uv_async_t *wake)
{
    struct port *p = wake->data;
    size_t bytes = 0;
    if (!p->rest)
        p->rest = take_notes(&p->inbox);
    while (p->rest && bytes < TURN_BYTES) {
        struct note *n = p->rest;
        p->rest = n->next;
        bytes += n->len;
        hand_over(p, n->kind, n->name, n->bytes, n->len);
        free(n);
    }
    if (p->rest || bytes >= TURN_BYTES)
        uv_async_send(&p->inbox.wake);
}

/* ---- the subscription ---- */

static void add(struct feed *f, int port, const char *name)
{
    if (!f->is_up)
        return;
    struct entry *e = find(f, name);
    if (!e) {
        e = must_calloc(1, sizeof *e);
        table_add(&f->entries, &e->node, name);
    }
    e->wanted |= 1u << port;
    if (e->state == ENTRY_LIVE)
        tell(&f->ports[port], NOTE_SUBSCRIBED, name, NULL, 0);
    settle(f, e);
}

static void remove_want(struct feed *f, int port, const char *name)
{
    struct entry *e = find(f, name);
    if (!f->is_up || !e)
        return;
    e->wanted &= ~(1u << port);
    settle(f, e);
    tell(&f->ports[port], NOTE_UNSUBSCRIBED, name, NULL, 0);
}

static void on_up(void *context)
{
    struct feed *f = context;
    f->is_up = true;
    for (int i = 0; i < f->port_count; i++)
        tell(&f->ports[i], NOTE_UP, "", NULL, 0);
}

static void forget_entry(struct table_node *node, void *context)
{
    forget(context, (struct entry *)node);
}

static void on_lost(void *context)
{
    struct feed *f = context;
    f->is_up = false;
    table_each(&f->entries, forget_entry, f);
    for (int i = 0; i < f->port_count; i++)
        tell(&f->ports[i], NOTE_LOST, "", NULL, 0);
}

static void on_subscribed(void *context, const char *name)
{
    struct feed *f = context;
    struct entry *e = find(f, name);
    if (!e || e->state != ENTRY_SUBSCRIBING)
        return;
    e->state = ENTRY_LIVE;
    tell_wanting(f, e->wanted, NOTE_SUBSCRIBED, name, NULL, 0);
    settle(f, e);
}

static void on_unsubscribed(void *context, const char *name)
{
    struct feed *f = context;
    struct entry *e = find(f, name);
    if (!e || e->state != ENTRY_UNSUBSCRIBING)
        return;
    e->state = ENTRY_NONE;
    settle(f, e);
}

static void on_message(void *context, const char *name, const char *bytes, size_t len)
{
    struct feed *f = context;
    const struct entry *e = find(f, name);
    if (strcmp(name, f->own) == 0)
        tell_wanting(f, ~0u, NOTE_MESSAGE, name, bytes, len);
    else if (e)
        tell_wanting(f, e->wanted, NOTE_MESSAGE, name, bytes, len);
}

static void on_feed_wake(uv_async_t *wake)
{
    struct feed *f = wake->data;
    for (struct note *n = take_notes(&f->inbox), *next; n; n = next) {
        next = n->next;
        if (n->kind == NOTE_ADD)
            add(f, n->port, n->name);
        else
            remove_want(f, n->port, n->name);
        free(n);
    }
}

static void on_tick(uv_timer_t *tick)
{
    subscriber_tick(((struct feed *)tick->data)->subscriber);
}

/* ---- what a loop asks for ---- */

void port_add(struct port *p, const char *channel)
{
    if (p->number == 0)
        add(p->feed, 0, channel);
    else
        (void)put_note(&p->feed->inbox, note_new(NOTE_ADD, p->number, channel, NULL, 0), SIZE_MAX);
}

void port_remove(struct port *p, const char *channel)
{
    if (p->number == 0)
        remove_want(p->feed, 0, channel);
    else
        (void)put_note(&p->feed->inbox, note_new(NOTE_REMOVE, p->number, channel, NULL, 0), SIZE_MAX);
}

bool port_is_up(const struct port *p)
{
    return p->is_up;
}

bool feed_is_up(const struct feed *f)
{
    return f->is_up;
}

/* ---- beginning and end ---- */

enum status feed_new(struct scope *sc, uv_loop_t *loop, const struct redis_address *address, const char *channel,
                     struct feed **out)
{
    struct feed *f = must_calloc(1, sizeof *f);
    struct subscriber_events events = {f, on_up, on_lost, on_subscribed, on_unsubscribed, on_message};
    f->tick.data = f;
    f->own = channel;
    enum status s = open_inbox(sc, &f->inbox, loop, on_feed_wake, f);
    if (s == STATUS_OK && uv_timer_init(loop, &f->tick) != 0)
        s = fail(sc, STATUS_INTERNAL, "the relay's loop takes no timer");
    if (s == STATUS_OK)
        s = subscriber_new(sc, loop, address, channel, &events, &f->subscriber);
    if (s != STATUS_OK)
        return s; /* a start that fails ends the process: what it left is not taken apart */
    uv_timer_start(&f->tick, on_tick, TICK_MS, TICK_MS);
    *out = f;
    return STATUS_OK;
}

enum status port_new(struct scope *sc, struct feed *feed, uv_loop_t *loop, const struct subscriber_events *events,
                     struct port **out)
{
    struct port *p = &feed->ports[feed->port_count];
    *p = (struct port){.feed = feed, .number = feed->port_count, .events = *events};
    enum status s = p->number == 0 ? STATUS_OK : open_inbox(sc, &p->inbox, loop, on_port_wake, p);
    if (s != STATUS_OK)
        return s;
    feed->port_count++;
    *out = p;
    return STATUS_OK;
}

void port_stop(struct port *p)
{
    struct feed *f = p->feed;
    if (p->number > 0) {
        close_inbox(&p->inbox);
        free_notes(p->rest);
        p->rest = NULL;
        return;
    }
    subscriber_stop(f->subscriber);
    close_inbox(&f->inbox);
    uv_close((uv_handle_t *)&f->tick, NULL);
}

void feed_free(struct feed *f)
{
    if (!f)
        return;
    subscriber_free(f->subscriber);
    table_each(&f->entries, forget_entry, f);
    table_done(&f->entries);
    pthread_mutex_destroy(&f->inbox.lock);
    for (int i = 1; i < f->port_count; i++)
        pthread_mutex_destroy(&f->ports[i].inbox.lock);
    free(f);
}
