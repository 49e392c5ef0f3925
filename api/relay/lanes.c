/* The relay as the rest of the program sees it: some lanes and what they share. */
#include "api/relay/relay.h"

#include "api/relay/lane.h"
#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    MOST_DEFAULT_LANES = 4,
    FILES_BESIDE_SOCKETS = 4096,
    MOST_FILES = 1 << 20, /* libwebsockets keeps tables of this size */
    DRAIN_GRACE_MS = 2500,
};

struct relay {
    struct shared shared;
    struct lane *lanes[FEED_PORTS];
    int lane_count;
};

/* One descriptor a connection, and libwebsockets sizes its tables by the limit. */
static void raise_file_limit(const struct settings *s)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    rlim_t wanted = (rlim_t)s->ws_max_total + FILES_BESIDE_SOCKETS;
    if (limit.rlim_cur > wanted)
        wanted = limit.rlim_cur;
    if (wanted > limit.rlim_max)
        wanted = limit.rlim_max;
    if (wanted > MOST_FILES)
        wanted = MOST_FILES;
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warning("file_limit", log_text("problem", strerror(errno)));
}

static int lanes_wanted(const struct settings *s)
{
    int64_t wanted = s->relay_threads;
    if (wanted <= 0) {
        wanted = sysconf(_SC_NPROCESSORS_ONLN) - 1;
        wanted = wanted < 1 ? 1 : wanted > MOST_DEFAULT_LANES ? MOST_DEFAULT_LANES : wanted;
    }
    return wanted > FEED_PORTS ? FEED_PORTS : (int)wanted;
}

static void init_shared(struct shared *shared)
{
    pthread_mutex_init(&shared->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&shared->is_empty, &attr);
    pthread_condattr_destroy(&attr);
}

static enum status start_feed(struct scope *sc, struct relay *r, struct api *api)
{
    struct redis *names = redis_new(
        &(struct redis_options){.url = api->settings->redis_url, .prefix = api->settings->redis_prefix});
    struct redis_address address = redis_address(names);
    r->shared.own_channel = must_strdup(redis_key(sc, names, REGISTRY_INSTANCE_CHANNEL, api->instance_id));
    enum status s = feed_new(sc, lane_loop(r->lanes[0]), &address, r->shared.own_channel, &r->shared.feed);
    r->shared.names = names; /* the address lies in it */
    return s;
}

enum status relay_start(struct scope *sc, struct api *api, struct relay **out)
{
    raise_file_limit(api->settings);
    struct relay *r = must_calloc(1, sizeof *r);
    init_shared(&r->shared);
    r->shared.lane_count = lanes_wanted(api->settings);
    enum status s = STATUS_OK;
    while (s == STATUS_OK && r->lane_count < r->shared.lane_count) {
        s = lane_new(sc, api, &r->shared, r->lane_count, &r->lanes[r->lane_count]);
        r->lane_count++;
    }
    if (s == STATUS_OK)
        s = start_feed(sc, r, api);
    for (int i = 0; i < r->lane_count && s == STATUS_OK; i++)
        s = lane_prepare(sc, r->lanes[i]);
    for (int i = 0; i < r->lane_count && s == STATUS_OK; i++)
        s = lane_start(sc, r->lanes[i]);
    if (s == STATUS_OK)
        *out = r;
    return s; /* a start that fails ends the process: what it left is not taken apart */
}

static struct lane *least_busy(const struct relay *r)
{
    struct lane *least = r->lanes[0];
    for (int i = 1; i < r->lane_count; i++) {
        if (lane_connections(r->lanes[i]) < lane_connections(least))
            least = r->lanes[i];
    }
    return least;
}

void relay_adopt(struct relay *r, int fd, const char *head, size_t head_len, const char *refusal)
{
    lane_adopt(least_busy(r), fd, head, head_len, refusal);
}

void relay_attach(struct relay *r, struct stream *stream, const struct stream_http *http)
{
    lane_attach(least_busy(r), stream, http);
}

const char *relay_trouble(const struct relay *r)
{
    return feed_is_up(r->shared.feed) ? NULL : "the relay's Redis subscription is away";
}

int relay_connections(const struct relay *r)
{
    return r->shared.client_count;
}

void relay_drain(struct relay *r, int spread_ms)
{
    const struct timespec until = clock_in_ms(spread_ms + DRAIN_GRACE_MS);
    for (int i = 0; i < r->lane_count; i++)
        lane_drain(r->lanes[i], spread_ms);
    pthread_mutex_lock(&r->shared.lock);
    while (r->shared.client_count > 0 && pthread_cond_timedwait(&r->shared.is_empty, &r->shared.lock, &until) == 0)
        continue;
    pthread_mutex_unlock(&r->shared.lock);
}

static void free_counter(struct table_node *node, void *context)
{
    table_remove(context, node);
    free(node);
}

void relay_stop(struct relay *r)
{
    for (int i = r ? r->lane_count - 1 : -1; i >= 0; i--) /* the first one, which all lean on, last */
        lane_stop(r->lanes[i]);
}

void relay_free(struct relay *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->lane_count; i++)
        lane_free(r->lanes[i]);
    feed_free(r->shared.feed);
    redis_free(r->shared.names);
    free(r->shared.own_channel);
    table_each(&r->shared.counters, free_counter, &r->shared.counters);
    table_done(&r->shared.counters);
    pthread_mutex_destroy(&r->shared.lock);
    pthread_cond_destroy(&r->shared.is_empty);
    free(r);
}
