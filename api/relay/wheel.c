#include "api/relay/wheel.h"

#include <stddef.h>

void wheel_init(struct wheel *w, int64_t now_ms)
{
    *w = (struct wheel){.start_ms = now_ms};
}

void wheel_take(struct wheel_entry *e)
{
    if (!e->link)
        return;
    *e->link = e->next;
    if (e->next)
        e->next->link = e->link;
    e->link = NULL;
    e->next = NULL;
}

static void insert(struct wheel_entry **list, struct wheel_entry *e)
{
    e->next = *list;
    if (e->next)
        e->next->link = &e->next;
    e->link = list;
    *list = e;
}

void wheel_put(struct wheel *w, struct wheel_entry *e, int64_t due_ms)
{
    wheel_take(e);
    int64_t tick = (due_ms - w->start_ms + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS;
    e->due_tick = tick > w->tick ? tick : w->tick + 1;
    insert(&w->slots[e->due_tick % WHEEL_SLOTS], e);
}

/* The slot's list is moved aside first, so that entries that `fire` puts into the same slot wait for their turn. */
static void fire_slot(struct wheel *w, void (*fire)(struct wheel_entry *e, void *context), void *context)
{
    struct wheel_entry *pending = NULL, **slot = &w->slots[w->tick % WHEEL_SLOTS];
    if (*slot) {
        pending = *slot;
        pending->link = &pending;
        *slot = NULL;
    }
    while (pending) {
        struct wheel_entry *e = pending;
        wheel_take(e);
        if (e->due_tick > w->tick)
            insert(slot, e); /* due in a later turn of the wheel */
        else
            fire(e, context);
    }
}

void wheel_advance(struct wheel *w, int64_t now_ms, void (*fire)(struct wheel_entry *e, void *context), void *context)
{
    int64_t target = (now_ms - w->start_ms) / WHEEL_TICK_MS;
    while (w->tick < target) {
        w->tick++;
        fire_slot(w, fire, context);
    }
}
