#include "api/relay/hub.h"

#include "api/relay/fanout.h"
#include "api/relay/flood.h"
#include "api/relay/recent.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    LOOKUP_THREADS = 4,
    LOOKUP_QUEUE = 8192,
    SCAN_THREADS = 4,
    SCAN_QUEUE = 64,
    PULSE_SECONDS = 5,
    CHECK_SECONDS = 30,
    CHECK_GRACE_MS = 1000, /* what was published just before the stream was looked at may still be on its way */
};

const char *hub_channel_name(struct scope *sc, const struct client *c)
{
    const struct redis *names = c->hub->shared->names;
    switch (c->kind) {
    case WS_OPERATIONS:
        return redis_key(sc, names, MESSAGE_CHANNEL_USER, (long long)c->user_id);
    case WS_OPERATION:
        return redis_key(sc, names, MESSAGE_CHANNEL_OPERATION, c->target);
    case WS_DIRECTORY_SCAN:
        return redis_key(sc, names, "directory-scan:%s", c->target);
    case WS_SCAN:
    case WS_UNKNOWN:
        break;
    }
    return NULL;
}

const char *hub_stream_name(struct scope *sc, const struct client *c)
{
    const struct redis *names = c->hub->shared->names;
    if (c->kind == WS_OPERATION)
        return redis_key(sc, names, MESSAGE_STREAM, c->target);
    return redis_key(sc, names, MESSAGE_USER_STREAM, (long long)c->user_id);
}

static int is_operation(const char *counter)
{
    return strncmp(counter, "operation:", 10) == 0;
}

static bool count_up(struct table *counters, const char *name, int64_t most)
{
    struct counter *counter = (struct counter *)table_find(counters, name);
    if (most <= (counter ? counter->count : 0))
        return false;
    if (!counter) {
        counter = must_calloc(1, sizeof *counter);
        table_add(counters, &counter->node, name);
    }
    counter->count++;
    return true;
}

bool hub_count_up(struct hub *hub, const char *name, int64_t most)
{
    pthread_mutex_lock(&hub->shared->lock);
    bool has_room = count_up(&hub->shared->counters, name, most);
    if (has_room && ((struct counter *)table_find(&hub->shared->counters, name))->count == 1)
        hub->tally.watched_operations += is_operation(name);
    pthread_mutex_unlock(&hub->shared->lock);
    return has_room;
}

void hub_count_down(struct hub *hub, const char *name)
{
    pthread_mutex_lock(&hub->shared->lock);
    struct counter *counter = (struct counter *)table_find(&hub->shared->counters, name);
    if (counter && --counter->count <= 0) {
        table_remove(&hub->shared->counters, &counter->node);
        free(counter);
        hub->tally.watched_operations -= is_operation(name);
    }
    pthread_mutex_unlock(&hub->shared->lock);
}

/* Frames of one turn of the loop leave together, many in one write. */
void hub_mark_dirty(struct client *c)
{
    if (c->is_dirty || !c->wire)
        return;
    c->is_dirty = true;
    tally_queued(&c->hub->tally);
    client_ref(c);
    c->next_dirty = c->hub->dirty;
    c->hub->dirty = c;
}

static void flush_dirty(struct hub *hub)
{
    while (hub->dirty) {
        struct client *c = hub->dirty;
        hub->dirty = c->next_dirty;
        c->is_dirty = false;
        if (c->wire)
            client_flush(c);
        client_unref(c);
    }
}

static void on_check(uv_check_t *check)
{
    fanout_flush(check->data);
    flush_dirty(check->data);
    tally_written(&((struct hub *)check->data)->tally);
}

/* ---- the subscription ---- */

static void on_up(void *context)
{
    struct hub *hub = context;
    channels_up(&hub->channels);
    access_up(hub);
}

static void suspend_listeners(struct table_node *node, void *unused)
{
    (void)unused;
    struct channel *channel = (struct channel *)node;
    recent_drop(channel); /* what came since is missing in it */
    for (struct listener *l = channel->first; l; l = l->next)
        client_suspend(client_of(l));
}

static void on_lost(void *context)
{
    struct hub *hub = context;
    channels_lost(&hub->channels);
    table_each(&hub->channels.table, suspend_listeners, NULL);
}

static void on_subscribed(void *context, const char *name)
{
    struct hub *hub = context;
    struct channel *channel = channel_find(&hub->channels, name);
    if (!channel && !access_listens(hub, name))
        port_remove(hub->port, name); /* asked for before an outage, and given up since */
    if (!channel || !channel_subscribed(&hub->channels, channel))
        return;
    for (struct listener *l = channel->first; l; l = l->next)
        client_subscribed(client_of(l));
}

static void on_unsubscribed(void *context, const char *name)
{
    struct hub *hub = context;
    struct channel *channel = channel_find(&hub->channels, name);
    if (channel) {
        recent_drop(channel);
        channel_unsubscribed(&hub->channels, channel);
    }
}

/* What the registry asks of this instance. */
static void take_word(struct hub *hub, const char *bytes, size_t len)
{
    char user[24];
    size_t start = sizeof REGISTRY_ASK - 1;
    if (len <= start || len - start >= sizeof user || memcmp(bytes, REGISTRY_ASK, start) != 0)
        return;
    memcpy(user, bytes + start, len - start);
    user[len - start] = '\0';
    silent_ask(hub, strtoll(user, NULL, 10));
}

static void on_message(void *context, const char *name, const char *bytes, size_t len)
{
    struct hub *hub = context;
    if (access_message(hub, name, bytes, len))
        return;
    if (strcmp(name, hub->shared->own_channel) == 0) {
        take_word(hub, bytes, len);
        return;
    }
    struct channel *channel = channel_find(&hub->channels, name);
    if (channel && !channel->first)
        recent_drop(channel); /* it would lack this one */
    struct frame *f = channel && channel->first ? frame_event(bytes, len, NULL) : NULL;
    if (!f)
        return;
    fanout_add(hub, channel, f);
    frame_unref(f);
}

/* ---- time ---- */

static void check_channel(struct table_node *node, void *context)
{
    struct hub *hub = context;
    struct channel *channel = (struct channel *)node;
    bool is_turn = (int64_t)(node->hash % CHECK_SECONDS) == hub->seconds % CHECK_SECONDS;
    if (is_turn && channel->first && channel->state == CHANNEL_LIVE && !channel->is_checking &&
        client_of(channel->first)->kind != WS_DIRECTORY_SCAN)
        lookup_check(hub, channel);
}

/* A second after a look at the stream's end: whoever still is not there lost something. */
static void settle_check(struct table_node *node, void *context)
{
    const int64_t *now = context;
    struct channel *channel = (struct channel *)node;
    recent_tidy(channel, *now);
    if (!channel->checked_at_ms || *now - channel->checked_at_ms < CHECK_GRACE_MS)
        return;
    channel->checked_at_ms = 0;
    for (struct listener *l = channel->first; l; l = l->next)
        client_checked(client_of(l), &channel->end, true);
}

static void each_second(struct hub *hub, int64_t now)
{
    hub->seconds++;
    tally_tell(&hub->tally);
    flood_tick(hub, now);
    channels_tidy(&hub->channels, now);
    table_each(&hub->channels.table, settle_check, &now);
    scan_tick(hub, now);
    if (hub->lane == 0)
        metrics_set(METRIC_WS_SUBSCRIBED, NULL, NULL, feed_is_up(hub->shared->feed) ? 1 : 0);
    if (hub->lane == 0 && hub->seconds % PULSE_SECONDS == 0)
        lookup_pulse(hub, hub->shared->own_channel);
    table_each(&hub->channels.table, check_channel, hub);
    for (struct client *c = hub->clients; c; c = c->next)
        client_look_slow(c, now);
    if (hub->has_failed_pages) {
        hub->has_failed_pages = false;
        for (struct client *c = hub->clients; c; c = c->next)
            client_page_on(c);
    }
    if (now >= hub->next_renew_ms && !hub->is_draining) {
        hub->next_renew_ms = now + REGISTRY_RENEW_SECONDS * 1000;
        lookup_renew(hub);
    }
}

static void on_tick(uv_timer_t *tick)
{
    struct hub *hub = tick->data;
    int64_t now = clock_monotonic_ms();
    wheel_advance(&hub->wheel, now, client_timer, hub);
    silent_tick(hub, now);
    access_tick(hub, now);
    if (now >= hub->next_second_ms) {
        hub->next_second_ms = now + 1000;
        each_second(hub, now);
    }
}

/* ---- beginning and end ---- */

static enum status start_parts(struct scope *sc, struct hub *hub)
{
    struct subscriber_events events = {hub, on_up, on_lost, on_subscribed, on_unsubscribed, on_message};
    int share = hub->shared->lane_count == 1 ? 1 : 2;
    enum status s = lookup_new(sc, hub->loop, hub->settings, LOOKUP_THREADS / share, LOOKUP_QUEUE, &hub->lookup);
    if (s == STATUS_OK)
        s = lookup_new(sc, hub->loop, hub->settings, SCAN_THREADS / share, SCAN_QUEUE, &hub->scans);
    if (s == STATUS_OK)
        s = port_new(sc, hub->shared->feed, hub->loop, &events, &hub->port);
    hub->channels.port = hub->port;
    return s == STATUS_OK ? streams_new(sc, hub) : s;
}

enum status hub_init(struct scope *sc, struct hub *hub)
{
    static const char pong[] = "{\"type\":\"pong\"}";
    for (int i = 0; i < FRAME_FORMATS; i++)
        hub->heartbeats[i] = frame_heartbeat(i);
    hub->pong = frame_text(pong, sizeof pong - 1);
    hub->scratch = must_malloc(WRITE_BYTES);
    hub->openings = openings_new();
    int64_t now = clock_monotonic_ms();
    hub->next_renew_ms = now + REGISTRY_RENEW_SECONDS * 1000;
    wheel_init(&hub->wheel, now);
    hub->tick.data = hub->check.data = hub;
    access_start(hub);
    if (uv_timer_init(hub->loop, &hub->tick) != 0 || uv_check_init(hub->loop, &hub->check) != 0)
        return fail(sc, STATUS_INTERNAL, "the relay's loop takes no timer");
    uv_timer_start(&hub->tick, on_tick, WHEEL_TICK_MS, WHEEL_TICK_MS);
    uv_check_start(&hub->check, on_check);
    return start_parts(sc, hub);
}

static void shuffle(struct client **list, int count)
{
    for (int i = count - 1; i > 0; i--) {
        uint32_t random = 0;
        ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
        (void)n;
        int j = (int)(random % (uint32_t)(i + 1));
        struct client *t = list[i];
        list[i] = list[j];
        list[j] = t;
    }
}

void hub_drain(struct hub *hub, int spread_ms)
{
    hub->is_draining = true;
    int count = 0;
    struct client **list = must_calloc((size_t)hub->client_count, sizeof(struct client *));
    for (struct client *c = hub->clients; c; c = c->next)
        list[count++] = c;
    shuffle(list, count);
    int64_t now = clock_monotonic_ms();
    for (int i = 0; i < count; i++) {
        list[i]->cut_at_ms = now + (client_is_poll(list[i]) ? 0 : (int64_t)spread_ms * i / count);
        wheel_put(&hub->wheel, &list[i]->timer, list[i]->cut_at_ms);
    }
    free(list);
}

void hub_stop(struct hub *hub)
{
    hub->is_stopping = true;
    port_stop(hub->port);
    lookup_stop(hub->scans);
    lookup_stop(hub->lookup);
    openings_close(hub->openings);
    streams_stop(hub->streams);
    flush_dirty(hub);
    uv_close((uv_handle_t *)&hub->tick, NULL);
    uv_close((uv_handle_t *)&hub->check, NULL);
}

static void drop_batch(struct table_node *node, void *unused)
{
    (void)unused;
    fanout_drop((struct channel *)node);
    recent_drop((struct channel *)node);
}

void hub_done(struct hub *hub)
{
    free(hub->left);
    access_done(hub);
    lookup_free(hub->scans);
    lookup_free(hub->lookup);
    streams_free(hub->streams);
    table_each(&hub->channels.table, drop_batch, NULL);
    channels_done(&hub->channels);
    for (int i = 0; i < FRAME_FORMATS; i++)
        frame_unref(hub->heartbeats[i]);
    frame_unref(hub->pong);
    free(hub->scratch);
    openings_free(hub->openings);
}
