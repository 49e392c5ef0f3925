/* The embedder's process as the worker sees it: a private socket, started, started again after it died, ended with the
 * worker. */
#pragma once

#include "common/config.h"

#include <sys/types.h>

struct embedder_process {
    char folder[96]; /* private; removed at the end, or by the next worker if this one is killed */
    int folder_fd;   /* holds a lock on it while this worker lives */
    char socket[112];
    int flight_fd; /* memory that outlives the process: worker/embed/flight.h */
    pid_t pid;     /* 0 = not running */
    int64_t start_at_ms, started_ms, pause_ms;
};

/* Makes the folder, and removes those of workers that were killed. STATUS_UNAVAILABLE when none can be made. */
enum status embedder_process_init(struct scope *sc, struct embedder_process *e) must_check;
/* Starts it when it is not running and its pause is over. */
void embedder_process_start(struct embedder_process *e);
/* True when it has ended since the last call; it is started again after a pause that grows while it does not live long.
 */
bool embedder_process_reap(struct embedder_process *e);
/* Ends it and removes the folder. */
void embedder_process_done(struct embedder_process *e);
