/* Between the door and the relay: how many handshakes begin. Each costs a signature, a statement in PostgreSQL and two
 * calls to Redis, so after a restart, when all come back at once, they are let in at WS_ACCEPT_RATE; those beyond it
 * wait for about a second, in order, and those beyond that are told when to come again, not all at the same time.
 * Before that each address is counted for itself.
 *
 * The door's thread alone. Times are clock_monotonic_us(). */
#pragma once

#include "api/api.h"

#include <stdbool.h>
#include <stdint.h>

struct gate;

enum gate_answer {
    GATE_PASS,
    GATE_WAIT,  /* it was taken, and comes out of gate_next() */
    GATE_BUSY,  /* 503 */
    GATE_FLOOD, /* 429: this address */
};

/* A request whose head was read. */
struct guest {
    int fd;
    char *head; /* of gate_next(): the caller's, to be freed */
    size_t len;
    const char *address; /* the client's, behind trusted proxies; not kept */
    const char *refusal; /* set by the gate: why it is let in only to be refused; constant, NULL = it is welcome */
};

struct gate *gate_new(const struct settings *settings);
/* Closes whoever waits still. */
void gate_free(struct gate *g);
/* GATE_WAIT: the descriptor is the gate's, the head was copied. GATE_BUSY, GATE_FLOOD: `out_retry_seconds`. */
enum gate_answer gate_knock(struct gate *g, struct guest *guest, int64_t now_us, int *out_retry_seconds);
/* The next one whose turn has come. */
bool gate_next(struct gate *g, int64_t now_us, struct guest *out);
/* Milliseconds until somebody's turn comes; -1 = nobody waits. */
int gate_wait_ms(const struct gate *g, int64_t now_us);
/* The key under which an address is counted: whoever has one IPv6 address has the 2^64 beside it. */
void gate_network(const char *address, char out[64]);
