#include "api/relay/gate.h"

#include "api/rate.h"
#include "common/metrics.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    ADDRESSES = 16384,
    WAITING_BYTES = 16 << 20,
    BURSTS_A_SECOND = 20, /* at the accept rate: what may come at once is a twentieth of a second's worth */
    FLOOD = 2,            /* times its rate: an address beyond it is not even let in to be refused */
    LONGEST_RETRY = 5,
};

struct waiting {
    struct waiting *next;
    int fd;
    const char *refusal;
    size_t len;
    char head[];
};

struct gate {
    bool is_limiting;
    struct rate accept, address;
    int64_t accept_tat_us;
    struct rate_table *addresses;
    struct waiting *first, **last;
    int count, most;
    size_t bytes;
};

struct gate *gate_new(const struct settings *s)
{
    struct gate *g = must_calloc(1, sizeof *g);
    int64_t rate = s->ws_accept_rate > 0 ? s->ws_accept_rate : 1;
    g->is_limiting = strcasecmp(s->rate_limits, "off") != 0;
    g->accept = rate_of(rate, 1000000);
    g->accept.burst = rate / BURSTS_A_SECOND > 0 ? rate / BURSTS_A_SECOND : 1;
    g->most = rate < INT32_MAX ? (int)rate : INT32_MAX;
    g->address = rate_of(s->ws_connects_per_address, 60000000);
    g->addresses = rate_table_new(ADDRESSES);
    g->last = &g->first;
    return g;
}

static struct waiting *take_first(struct gate *g)
{
    struct waiting *w = g->first;
    g->first = w->next;
    if (!g->first)
        g->last = &g->first;
    g->count--;
    g->bytes -= w->len;
    return w;
}

void gate_free(struct gate *g)
{
    if (!g)
        return;
    while (g->first) {
        struct waiting *w = take_first(g);
        close(w->fd);
        free(w);
    }
    rate_table_free(g->addresses);
    free(g);
}

void gate_network(const char *address, char out[64])
{
    struct in6_addr v6;
    if (inet_pton(AF_INET6, address, &v6) == 1) {
        memset(&v6.s6_addr[8], 0, 8);
        if (inet_ntop(AF_INET6, &v6, out, 64))
            return;
    }
    snprintf(out, 64, "%s", address);
}

/* GATE_PASS with a refusal when it came too often, GATE_FLOOD when it does not stop at that. */
static enum gate_answer count_address(struct gate *g, struct guest *guest, int64_t now_us, int *out_retry_seconds)
{
    char network[64];
    struct rate most = g->address;
    int64_t ahead = 0;
    most.burst *= FLOOD;
    gate_network(guest->address, network);
    int64_t wait = rate_table_step(g->addresses, &most, network, now_us, &ahead);
    if (wait > 0) {
        *out_retry_seconds = (int)((ahead - g->address.burst * g->address.interval) / 1000000) + 1;
        return GATE_FLOOD;
    }
    if (ahead > g->address.burst * g->address.interval)
        guest->refusal = "too many new connections from this address; try again in a minute";
    return GATE_PASS;
}

static int jittered_retry(void)
{
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
    (void)n;
    return 1 + (int)(random % LONGEST_RETRY);
}

static enum gate_answer count_accept(struct gate *g, const struct guest *guest, int64_t now_us, int *out_retry_seconds)
{
    if (!g->first && rate_step(&g->accept, now_us, &g->accept_tat_us) == 0)
        return GATE_PASS;
    if (g->count >= g->most || g->bytes + guest->len > WAITING_BYTES) {
        *out_retry_seconds = jittered_retry();
        return GATE_BUSY;
    }
    struct waiting *w = must_malloc(sizeof *w + guest->len);
    *w = (struct waiting){.fd = guest->fd, .refusal = guest->refusal, .len = guest->len};
    memcpy(w->head, guest->head, guest->len);
    *g->last = w;
    g->last = &w->next;
    g->count++;
    g->bytes += w->len;
    return GATE_WAIT;
}

enum gate_answer gate_knock(struct gate *g, struct guest *guest, int64_t now_us, int *out_retry_seconds)
{
    guest->refusal = NULL;
    enum gate_answer answer = GATE_PASS;
    if (g->is_limiting)
        answer = count_address(g, guest, now_us, out_retry_seconds);
    if (answer == GATE_PASS)
        answer = count_accept(g, guest, now_us, out_retry_seconds);
    if (answer == GATE_BUSY || answer == GATE_FLOOD)
        metrics_add(METRIC_WS_REFUSALS, answer == GATE_BUSY ? "accept_rate" : "address_rate", NULL, 1);
    return answer;
}

bool gate_next(struct gate *g, int64_t now_us, struct guest *out)
{
    if (!g->first || rate_step(&g->accept, now_us, &g->accept_tat_us) > 0)
        return false;
    struct waiting *w = take_first(g);
    *out = (struct guest){.fd = w->fd, .len = w->len, .head = must_malloc(w->len), .refusal = w->refusal};
    memcpy(out->head, w->head, w->len);
    free(w);
    return true;
}

int gate_wait_ms(const struct gate *g, int64_t now_us)
{
    if (!g->first)
        return -1;
    int64_t tat = g->accept_tat_us;
    int64_t wait = rate_step(&g->accept, now_us, &tat);
    return (int)((wait + 999) / 1000);
}
