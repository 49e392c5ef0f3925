#include "api/relay/flood.h"

#include "api/rate.h"
#include "api/relay/hub.h"
#include "common/clock.h"
#include "common/metrics.h"

#include <strings.h>
#include <time.h>

enum {
    BURST_SECONDS = 10,
    BUSY_MS = 200, /* of processor time in a second */
    BYTES_A_SECOND = 128 << 10,
    STALE_MS = 5000, /* a look at the bytes that is older says nothing */
    GOODBYE_MS = 500,
};

static bool is_off(const struct settings *s)
{
    return strcasecmp(s->rate_limits, "off") == 0;
}

static void close_flooding(struct client *c)
{
    if (c->state >= CLIENT_CLOSING)
        return;
    metrics_add(METRIC_WS_CONNECTIONS, client_type(c), "flooding", 1);
    client_close(c, CLOSE_POLICY, "too many messages");
    wheel_put(&c->hub->wheel, &c->timer, clock_monotonic_ms() + GOODBYE_MS); /* it hardly waits for an answer */
}

bool flood_count(struct client *c, int cost)
{
    const struct settings *s = c->hub->settings;
    if (is_off(s))
        return true;
    struct rate rate = rate_of(s->ws_messages_per_second, 1000000);
    rate.burst = rate.burst * BURST_SECONDS / cost;
    rate.interval *= cost;
    if (rate_step(&rate, clock_monotonic_us(), &c->message_tat_us) == 0)
        return true;
    close_flooding(c);
    return false;
}

static void look_at(struct client *c, int64_t now_ms)
{
    int64_t bytes = wire_received(c), before = c->received_bytes, since_ms = now_ms - c->received_ms;
    c->received_bytes = bytes;
    c->received_ms = now_ms;
    if (since_ms > 0 && since_ms < STALE_MS && (bytes - before) * 1000 / since_ms > BYTES_A_SECOND)
        close_flooding(c);
}

static int64_t thread_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void flood_tick(struct hub *hub, int64_t now_ms)
{
    int64_t used = thread_ms(), busy = used - hub->used_ms;
    hub->used_ms = used;
    if (busy < BUSY_MS || is_off(hub->settings))
        return;
    for (struct client *c = hub->clients; c; c = c->next) {
        if (c->state == CLIENT_OPEN || c->state == CLIENT_SUBSCRIBING)
            look_at(c, now_ms);
    }
}
