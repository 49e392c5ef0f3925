/* What one request or task owns: its memory, its deadline, its trace id and the first problem that it met.
 *
 * Whoever finds a fault calls fail() and returns the status; callers pass it up with a plain `if`; whoever ends the
 * scope logs the problem once, with the trace id. */
#pragma once

#include "common/arena.h"
#include "common/status.h"

#include <stdint.h>

struct scope {
    struct arena arena;
    char trace_id[37];        /* correlation id of a request or UUID of an operation; "" if none */
    int64_t deadline_ms;      /* clock_monotonic_ms() at which the caller gives up; 0 = never */
    enum status problem;      /* the first failure, STATUS_OK if there was none */
    const char *problem_text; /* its sentence, in the arena; NULL if there was none */
};

/* `trace_id` may be NULL. */
void scope_init(struct scope *sc, const char *trace_id);
void scope_done(struct scope *sc);
/* Forgets the first problem, for a caller that handled it. */
void scope_forgive(struct scope *sc);

/* Notes the problem (the first one wins) and returns `s`, so that one writes `return fail(sc, STATUS_…, "…")`.
 * The sentence is for logs and, for statuses below 500, for the client: no secrets, no internals. */
enum status fail(struct scope *sc, enum status s, const char *format, ...) printf_like(3, 4);
