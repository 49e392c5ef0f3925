/* Threads beside those that read connections, for requests that take seconds. The queue is short: who does not fit is
 * told to come back. */
#pragma once

#include "common/base.h"

#include <stdbool.h>

struct slow_lane;

/* One piece of work; the caller's memory, which must live until `run` has returned. */
struct slow_job {
    void (*run)(struct slow_job *job);
    struct slow_job *next; /* the lane's own */
};

struct slow_lane *slow_lane_new(int threads, int most_waiting);
/* False: too many wait already; the job was not taken. */
bool slow_lane_push(struct slow_lane *lane, struct slow_job *job);
/* For what a job waits for; `context` is the lane. True = it should end soon. */
bool slow_lane_is_closing(void *context);
/* Ends the threads; jobs that wait are run too, and see that it is closing. NULL is fine. */
void slow_lane_close(struct slow_lane *lane);
void slow_lane_free(struct slow_lane *lane);
