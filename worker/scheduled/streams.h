/* Event streams in Redis that nobody lets end. */
#pragma once

#include "worker/schedule.h"

/* Gives a day's life to streams of operations that are over and have no end of life: their last event did not reach
 * Redis, or Redis lost what it was told. *out_count: how many. */
enum status streams_let_end(struct scope *sc, struct scheduled *s, int64_t *out_count) must_check;
