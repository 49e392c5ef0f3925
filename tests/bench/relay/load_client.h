/* The load client's connections: one thread, one epoll. Far cheaper than any server: what comes is read into one buffer
 * and looked at there; only a frame that is not whole is kept. */
#pragma once

#include "tests/bench/relay/load_figures.h"
#include "tests/bench/relay/load_frames.h"

#include <stddef.h>

enum conn_state { CONN_NEW, CONN_CONNECTING, CONN_SHAKING, CONN_OPEN, CONN_CLOSED };

struct conn {
    const char *path, *token; /* "-" = none */
    int port, fd;
    uint32_t channel;
    enum conn_state state;
    bool is_slow; /* stopped reading once: its figures are kept apart */
    bool is_stopped, is_closing, is_counted;
    uint16_t close_code; /* 0 = without a close frame */
    uint32_t events;     /* since it was opened */
    struct sequence seen;
    char id[56]; /* of the last event */
    uint8_t id_len;
    char *rest; /* what is not whole yet */
    size_t rest_len, rest_capacity;
    uint64_t started_ns, opened_ns, ready_ns, stopped_ns, closed_ns;
};

/* Since the last mark; `apart` are those of slow readers. */
struct figures {
    uint64_t since_ns, last_ns; /* last_ns: when the last event of the window came */
    uint64_t delivered, bytes, late, twice, published_twice, strangers, wrong_channel, wrong_frames;
    uint64_t apart_delivered, apart_bytes, apart_twice;
    uint64_t pings, others, truncated, closed, cut;
    struct histogram latency;
};

struct load {
    int epoll;
    struct conn *conns;
    size_t count;
    int sources, receive_buffer; /* addresses 127.0.0.1 and up; SO_RCVBUF, 0 = the system's */
    bool speaks_engineio, reconnects;
    uint32_t wanted_events; /* a connection is ready once it has had so many; 0 = when it is open */
    size_t opening, ready, refused;
    char first_refusal[160];
    size_t guess;
    struct figures now;
    char *buffer;
};

enum { LOAD_BUFFER_BYTES = 256 << 10 };

uint64_t load_now(void);
void conn_open(struct load *l, struct conn *c);
/* Says goodbye when `is_soft`, else resets the connection. */
void conn_close(struct load *l, struct conn *c, bool is_soft);
void conn_stop(struct load *l, struct conn *c);
void conn_go_on(struct load *l, struct conn *c);
/* Waits for what comes, `timeout_ms` at most, and takes it. */
void load_turn(struct load *l, int timeout_ms);
