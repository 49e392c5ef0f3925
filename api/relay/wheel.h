/* Timers of connections: heartbeats, expiry of tokens, late pongs. libwebsockets keeps all its timers in one sorted
 * list, which costs as many steps as there are connections; here an entry is put and taken in constant time. Due times
 * are kept to a tick of 250 ms. */
#pragma once

#include <stdint.h>

enum { WHEEL_SLOTS = 256, WHEEL_TICK_MS = 250 };

struct wheel_entry {
    struct wheel_entry *next, **link; /* link = NULL: not on the wheel */
    int64_t due_tick;
};

struct wheel {
    struct wheel_entry *slots[WHEEL_SLOTS]; /* zeroed struct = empty wheel */
    int64_t tick;
    int64_t start_ms;
};

void wheel_init(struct wheel *w, int64_t now_ms);
/* Moves the entry if it is on the wheel already. A due time that has passed fires at the next advance. */
void wheel_put(struct wheel *w, struct wheel_entry *e, int64_t due_ms);
void wheel_take(struct wheel_entry *e);
/* Takes off and fires every entry that is due. `fire` may put it again, and put and take others. */
void wheel_advance(struct wheel *w, int64_t now_ms, void (*fire)(struct wheel_entry *e, void *context), void *context);
