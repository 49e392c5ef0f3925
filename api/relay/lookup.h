/* The threads on which the relay asks PostgreSQL and Redis, so that its loop never waits. A job runs on one of them,
 * then its end runs on the loop. */
#pragma once

#include "api/api.h"

#include <uv.h>

/* What a thread has. */
struct lookup_tools {
    const struct settings *settings;
    struct db *db;
    struct redis *events; /* stream database */
    char *buffer;
};

struct job {
    struct job *next;
    bool is_urgent;
    void (*run)(struct job *job, struct lookup_tools *tools); /* on a look-up thread */
    void (*end)(
        struct job *job); /* on the loop; frees the job. Called for every job that was taken, also at shut-down */
};

struct lookup;

/* `queue_max`: jobs that may wait. */
enum status lookup_new(struct scope *sc, uv_loop_t *loop, const struct settings *settings, int threads, int queue_max,
                       struct lookup **out) must_check;
/* On the loop. False when too many wait: the job was not taken and is still the caller's. `is_urgent` passes the bound
 * (it frees something). */
bool lookup_submit(struct lookup *l, struct job *job, bool is_urgent);
/* From a job that runs: calls `tell(context)` on the loop some time later. `context` is freed by tell. */
void lookup_tell(struct lookup *l, void (*tell)(void *context), void *context);
/* Stops the threads after what they are at and what is urgent, then ends all jobs; the loop must run once more to close
 * the handle. On the loop. */
void lookup_stop(struct lookup *l);
/* After the loop is done. */
void lookup_free(struct lookup *l);
