/* Threads that share out a computation, and the one place where it tells how far it is and asks whether to stop.
 *
 * Work is cut into blocks that do not depend on each other; who does which block is left to chance, so a result must
 * not depend on it: a block writes only what is its own, and sums over blocks are made afterwards, in their order. */
#pragma once

#include "common/base.h"

#include <stdbool.h>
#include <stddef.h>

struct crew;

/* Called by the thread that made the crew, some times a second; `fraction` of the whole. True = stop. */
typedef bool crew_watch(void *context, const char *stage, double fraction);

/* `threads` counts the caller's own. `watch` may be NULL. */
struct crew *crew_new(int threads, crew_watch *watch, void *context);
void crew_free(struct crew *crew);
int crew_threads(const struct crew *crew);

/* What follows is called `stage` and takes the computation from one fraction of the whole to another. */
void crew_stage(struct crew *crew, const char *stage, double from, double to);
/* How much of the stage is done; for work that the caller does alone. True = stop. */
bool crew_report(struct crew *crew, double done);
/* The same for what is within a block that takes long; `thread` is the block's. */
bool crew_poll(struct crew *crew, int thread);
bool crew_is_stopped(const struct crew *crew);

/* Calls work(context, from, to, thread) for blocks of at most `grain` of `items`; thread is 0 … crew_threads() - 1, for
 * room of one's own. False: stopped, the result is worth nothing. */
typedef void crew_work(void *context, size_t from, size_t to, int thread);
bool crew_run(struct crew *crew, size_t items, size_t grain, crew_work *work, void *context) must_check;
/* The same without a report, for the many short rounds of a longer stage. */
bool crew_round(struct crew *crew, size_t items, size_t grain, crew_work *work, void *context) must_check;
